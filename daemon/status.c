/* The line of status: see status.h. */
#include "status.h"

#include "store/store.h"

#include <stdio.h>

void status_line(const struct store_health *health, char out[STATUS_LINE_MAX])
{
	switch (health->condition) {
	case STORE_READY:
		/* Not the detail of the embedded store, which changes with each circuit. */
		snprintf(out, STATUS_LINE_MAX, "Ready: %s",
			 health->counts_circuits ? health->store : health->detail);
		break;
	case STORE_DEGRADED:
		snprintf(out, STATUS_LINE_MAX, "Degraded, serving from memory: %s", health->reason);
		break;
	case STORE_AWAY:
		snprintf(out, STATUS_LINE_MAX, "Unavailable, answering with errors: %s",
			 health->reason);
		break;
	}
}
