/*
 * The line about the store that `systemctl status` shows.
 */
#ifndef BREAKERD_STATUS_H
#define BREAKERD_STATUS_H

#include <stddef.h>

struct store_health;

/* Room for any such line with its NUL. */
#define STATUS_LINE_MAX 320

void status_line(const struct store_health *health, char out[STATUS_LINE_MAX]);

#endif
