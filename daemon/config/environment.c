/* Settings in the environment. */
#include "config/environment.h"

#include "config/take.h"

#include <regex.h>
#include <string.h>

#define VARIABLE "BREAKERD_"

/* The value of the setting's variable, or NULL. An empty variable counts as not set: compose files
 * make empty ones of variables that are not set where they run. */
static const char *find_variable(char *const envp[], const struct config_setting *s)
{
	char name[CONFIG_NAME_MAX];
	size_t len;

	config_variable(s, name);
	len = strlen(name);
	for (; envp && *envp; envp++)
		if (strncmp(*envp, name, len) == 0 && (*envp)[len] == '=')
			return (*envp)[len + 1] ? *envp + len + 1 : NULL;
	return NULL;
}

bool environment_take(struct config *config, char *const envp[], const struct config_setting *s,
		      struct config_error *error)
{
	struct config_source source = {.origin = CONFIG_FROM_ENVIRONMENT};
	const char *value = find_variable(envp, s);

	return !value || take_value(config, s, source, value, error);
}

static bool is_variable(const char *name, size_t len)
{
	char known[CONFIG_NAME_MAX];

	for (size_t i = 0; i < CONFIG_SETTINGS; i++) {
		config_variable(&config_settings[i], known);
		if (strlen(known) == len && memcmp(known, name, len) == 0)
			return true;
	}
	return false;
}

/*
 * The variables that Kubernetes and Docker set for a service: its host, its port, and for each port
 * an address in four parts. The value has to match, too: BREAKERD_PORT=9000 is somebody's mistake,
 * and is warned of.
 */
#define PORT_OF "_PORT_[0-9]+_(TCP|UDP|SCTP)"
static const char service_variable[] =
	"^BREAKERD(_[A-Z0-9_]+)?("
	"(_SERVICE_HOST|" PORT_OF "_ADDR)=[0-9a-fA-F:.]+"
	"|(_SERVICE_PORT(_[A-Z0-9_]+)?|" PORT_OF "_PORT)=[0-9]{1,5}"
	"|" PORT_OF "_PROTO=(tcp|udp|sctp)"
	"|(_PORT|" PORT_OF ")=(tcp|udp|sctp)://[][0-9a-fA-F:.]+:[0-9]{1,5}"
	")$";

/* Longer variables are not matched; a name of Kubernetes has 63 letters at most. */
#define SERVICE_VARIABLE_MAX 256

static bool is_service_variable(const regex_t *pattern, const char *variable)
{
	return strnlen(variable, SERVICE_VARIABLE_MAX) < SERVICE_VARIABLE_MAX &&
	       regexec(pattern, variable, 0, NULL, 0) == 0;
}

/* Only a warning: container platforms set names of their own. */
static void warn(const char *variable, size_t len, struct log *log)
{
	const size_t head = strlen(VARIABLE);
	const char *nearest = config_nearest(variable + head, len - head);
	char name[CONFIG_NAME_MAX] = "";

	if (nearest)
		config_variable(take_setting(nearest), name);
	log_warning(log, "unknown_variable", "name=%s%s%s", log_quote(variable, len).text,
		    nearest ? " nearest=" : "", name);
}

void environment_warn(char *const envp[], struct log *log)
{
	regex_t service;

	if (regcomp(&service, service_variable, REG_EXTENDED | REG_NOSUB) != 0)
		return; /* out of memory */
	for (; envp && *envp; envp++) {
		size_t len = strcspn(*envp, "=");

		if (strncmp(*envp, VARIABLE, strlen(VARIABLE)) == 0 && !is_variable(*envp, len) &&
		    !is_service_variable(&service, *envp))
			warn(*envp, len, log);
	}
	regfree(&service);
}
