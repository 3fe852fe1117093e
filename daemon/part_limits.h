/* Takes the settings that each part of the daemon needs out of the configuration. */
#ifndef BREAKERD_PART_LIMITS_H
#define BREAKERD_PART_LIMITS_H

#include "api/api.h"
#include "base/metrics.h"
#include "config/settings.h"
#include "descriptors.h"
#include "http/http.h"
#include "store/store.h"

struct store_limits limits_of_store(const struct config *config);

/* `share`: what the limit on open files leaves of max_connections and max_streams. */
struct http_limits limits_of_http(const struct config *config,
				  const struct descriptor_share *share);
struct api_limits limits_of_api(const struct config *config, const struct descriptor_share *share);

/* Sets the metrics that show limits. */
void limits_show(struct metrics *metrics, const struct config *config,
		 const struct descriptor_share *share);

#endif
