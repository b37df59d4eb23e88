/* Asks the C library: lookup FAMILY NAME, or reverse IP. FAMILY is any, 4 or 6.
   Prints "addr A", "name N" or "error CODE" lines, then "ms N". */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static const char *kind(int e)
{
	if (e == EAI_NONAME)
		return "notfound";
#ifdef EAI_NODATA
	if (e == EAI_NODATA)
		return "notfound";
#endif
	return e == EAI_AGAIN ? "again" : gai_strerror(e);
}

static void lookup(const char *family, const char *name)
{
	struct addrinfo hints, *list, *a;
	char text[INET6_ADDRSTRLEN];
	int e;

	memset(&hints, 0, sizeof hints);
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_family = family[0] == '4' ? AF_INET : family[0] == '6' ? AF_INET6 : AF_UNSPEC;
	if ((e = getaddrinfo(name, NULL, &hints, &list)) != 0) {
		printf("error %s\n", kind(e));
		return;
	}
	for (a = list; a != NULL; a = a->ai_next) {
		getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST);
		printf("addr %s\n", text);
	}
}

static void reverse(const char *ip)
{
	struct addrinfo hints, *a;
	char name[1024];
	int e;

	memset(&hints, 0, sizeof hints);
	hints.ai_flags = AI_NUMERICHOST;
	if ((e = getaddrinfo(ip, NULL, &hints, &a)) == 0)
		e = getnameinfo(a->ai_addr, a->ai_addrlen, name, sizeof name, NULL, 0, NI_NAMEREQD);
	if (e != 0)
		printf("error %s\n", kind(e));
	else
		printf("name %s\n", name);
}

int main(int argc, char **argv)
{
	struct timespec from, to;

	clock_gettime(CLOCK_MONOTONIC, &from);
	if (argc == 4 && strcmp(argv[1], "lookup") == 0)
		lookup(argv[2], argv[3]);
	else if (argc == 3 && strcmp(argv[1], "reverse") == 0)
		reverse(argv[2]);
	else
		return 2;
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("ms %ld\n", (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000);
	return 0;
}
