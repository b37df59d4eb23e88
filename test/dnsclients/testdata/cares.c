/* Asks c-ares: lookup FAMILY NAME, reverse IP, or srv NAME. FAMILY is any, 4 or 6.
   Prints "addr A", "name N", "srv PORT" or "error CODE" lines, then "ms N". */
#include <ares.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>

static int failed(int status)
{
	switch (status) {
	case ARES_SUCCESS:
		return 0;
	case ARES_ENOTFOUND:
	case ARES_ENODATA:
		printf("error notfound\n");
		return 1;
	case ARES_ETIMEOUT:
	case ARES_ESERVFAIL:
	case ARES_EREFUSED:
	case ARES_ECONNREFUSED:
		printf("error again\n");
		return 1;
	}
	printf("error %s\n", ares_strerror(status));
	return 1;
}

static void on_addresses(void *arg, int status, int timeouts, struct ares_addrinfo *list)
{
	struct ares_addrinfo_node *a;
	char text[INET6_ADDRSTRLEN];

	if (failed(status))
		return;
	for (a = list->nodes; a != NULL; a = a->ai_next) {
		getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST);
		printf("addr %s\n", text);
	}
	ares_freeaddrinfo(list);
}

static void on_host(void *arg, int status, int timeouts, struct hostent *host)
{
	if (!failed(status))
		printf("name %s\n", host->h_name);
}

static void on_srv(void *arg, int status, int timeouts, unsigned char *reply, int length)
{
	struct ares_srv_reply *list, *s;

	if (failed(status) || failed(ares_parse_srv_reply(reply, length, &list)))
		return;
	for (s = list; s != NULL; s = s->next)
		printf("srv %d\n", s->port);
	ares_free_data(list);
}

static void run(ares_channel channel)
{
	for (;;) {
		struct timeval most = {30, 0}, wait;
		fd_set r, w;
		int n;

		FD_ZERO(&r);
		FD_ZERO(&w);
		if ((n = ares_fds(channel, &r, &w)) == 0)
			return;
		select(n, &r, &w, NULL, ares_timeout(channel, &most, &wait));
		ares_process(channel, &r, &w);
	}
}

int main(int argc, char **argv)
{
	struct ares_addrinfo_hints hints;
	struct in_addr ip;
	struct timespec from, to;
	ares_channel channel;

	if (argc < 3 || ares_library_init(ARES_LIB_INIT_ALL) != 0 || ares_init(&channel) != 0)
		return 2;
	clock_gettime(CLOCK_MONOTONIC, &from);
	if (argc == 4 && strcmp(argv[1], "lookup") == 0) {
		memset(&hints, 0, sizeof hints);
		hints.ai_family = argv[2][0] == '4' ? AF_INET : argv[2][0] == '6' ? AF_INET6 : AF_UNSPEC;
		ares_getaddrinfo(channel, argv[3], NULL, &hints, on_addresses, NULL);
	} else if (strcmp(argv[1], "reverse") == 0 && inet_pton(AF_INET, argv[2], &ip) == 1) {
		ares_gethostbyaddr(channel, &ip, sizeof ip, AF_INET, on_host, NULL);
	} else if (strcmp(argv[1], "srv") == 0) {
		ares_query(channel, argv[2], 1, 33, on_srv, NULL);
	} else {
		return 2;
	}
	run(channel);
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("ms %ld\n", (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000);
	ares_destroy(channel);
	return 0;
}
