/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * relay.c - a TCP relay that does harm: between a migration's two ends
 *
 *   relay PORT MODE CONNECTION BYTES
 *
 * Listens on a port of 127.0.0.1, which it prints, and forwards each connection to PORT there. On
 * connection number CONNECTION (1 is the first), after BYTES from the client:
 *
 *   none    nothing
 *   cut     every connection is reset, and the relay ends
 *   trunc   the server sees the end of the stream; the client's bytes go nowhere
 *   stall   no byte more is read from the client, nothing is closed
 *   flip    the next byte arrives with one bit turned
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *mode;
static int harmed;
static uint64_t harm_at;

struct way {
	int from, to;
	bool harm;
};

static int local_socket(unsigned port, bool listening)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM, 0), err;

	if (listening)
		err = bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 8);
	else
		err = connect(fd, (struct sockaddr *)&address, sizeof(address));
	if (fd < 0 || err) {
		perror("relay");
		exit(1);
	}
	return fd;
}

static void reset(int fd)
{
	struct linger now = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

static void write_all(int fd, const uint8_t *bytes, size_t len)
{
	while (len) {
		ssize_t sent = send(fd, bytes, len, MSG_NOSIGNAL);

		if (sent <= 0)
			return;
		bytes += sent;
		len -= (size_t)sent;
	}
}

static void *forward(void *argument)
{
	struct way *way = argument;
	uint8_t buffer[16384];
	uint64_t passed = 0;
	bool swallow = false;

	for (;;) {
		ssize_t got = recv(way->from, buffer, sizeof(buffer), 0);

		if (got <= 0)
			break;
		if (way->harm && passed + (uint64_t)got > harm_at && !swallow) {
			size_t before = (size_t)(harm_at - passed);

			way->harm = false;
			if (!strcmp(mode, "flip")) {
				buffer[before] ^= 0x40;
			} else {
				write_all(way->to, buffer, before);
				if (!strcmp(mode, "stall"))
					for (;;)
						pause();
				if (!strcmp(mode, "cut")) {
					reset(way->from);
					reset(way->to);
					_exit(0);
				}
				shutdown(way->to, SHUT_WR);
				swallow = true;
			}
		}
		if (!swallow)
			write_all(way->to, buffer, (size_t)got);
		passed += (uint64_t)got;
	}
	/* An end passes on, and what comes after it is nobody's. */
	shutdown(way->to, SHUT_WR);
	if (swallow)
		shutdown(way->from, SHUT_RDWR);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address;
	socklen_t length = sizeof(address);
	int listener;

	if (argc != 5) {
		fprintf(stderr, "usage: relay PORT none|cut|trunc|stall|flip CONNECTION BYTES\n");
		return 2;
	}
	mode = argv[2];
	harmed = atoi(argv[3]);
	harm_at = strtoull(argv[4], NULL, 10);
	listener = local_socket(0, true);
	getsockname(listener, (struct sockaddr *)&address, &length);
	printf("%u\n", ntohs(address.sin_port));
	fflush(stdout);
	for (int number = 1;; number++) {
		int client = accept(listener, NULL, NULL), server;
		struct way *way = calloc(2, sizeof(*way));
		pthread_t thread;

		if (client < 0 || !way)
			return 1;
		server = local_socket((unsigned)atoi(argv[1]), false);
		way[0] = (struct way){ client, server, number == harmed && strcmp(mode, "none") };
		way[1] = (struct way){ server, client, false };
		for (int i = 0; i < 2; i++)
			if (pthread_create(&thread, NULL, forward, &way[i]) || pthread_detach(thread))
				return 1;
	}
}
