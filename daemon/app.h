/*
 * The process: owns everything, starts it in order and stops it in the reverse one.
 */
#ifndef BREAKERD_APP_H
#define BREAKERD_APP_H

/*
 * Runs breakerd from arguments and environment until it is told to stop. Returns the exit
 * status: 0 after a clean stop (and after --help and the like), 1 for a configuration or
 * start-up error, 2 for wrong usage.
 */
int app_run(int argc, char *argv[], char *envp[]);

#endif
