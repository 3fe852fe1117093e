#include "app.h"

int main(int argc, char *argv[], char *envp[])
{
	return app_run(argc, argv, envp);
}
