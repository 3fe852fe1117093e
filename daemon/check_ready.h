/* --check-ready: asks a running daemon whether traffic may come. */
#ifndef BREAKERD_CHECK_READY_H
#define BREAKERD_CHECK_READY_H

struct config;

/*
 * Asks /readyz at config->ready_address, or at the addresses of `listen` and `metrics_listen` in
 * their order until one of them accepts. Returns 0 if the answer is 200; else 1, with one line on
 * stderr. Takes two seconds at most: the process then ends with status 1.
 */
int check_ready(const struct config *config);

#endif
