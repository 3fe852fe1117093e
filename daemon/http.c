#include "http.h"

const char *http_method_name(enum http_method method)
{
	static const char *const names[] = {
		[HTTP_GET] = "GET",	  [HTTP_HEAD] = "HEAD",	  [HTTP_POST] = "POST",
		[HTTP_DELETE] = "DELETE", [HTTP_OTHER] = "other",
	};

	return names[(unsigned)method < HTTP_METHODS ? method : HTTP_OTHER];
}
