/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * migrate_control.c - the control connection: framed messages, errors by words
 *
 * Apart from the data, so that what checks the data does not go through what it checks. Each message
 * is twelve bytes of head and a payload whose length its type decides; the buffer for it is made at
 * the start, nothing longer is ever read.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "migrate.h"

#define CONTROL_MAGIC 0x6c746377u
#define TICK_MS 100

struct control_head {
	uint32_t magic;
	uint32_t type;
	uint32_t length;
};

uint64_t page_xxh3(const void *page)
{
	return XXH3_64bits(page, GODWIT_PAGE_BYTES);
}

int control_init(struct control *control, int fd, const char *peer, uint64_t stall_ns)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	*control = (struct control){
		.fd = fd, .peer = peer, .stall_ns = stall_ns, .buffer = malloc(CONTROL_MAX_BYTES),
	};
	return control->buffer ? 0 : -ENOMEM;
}

void control_fini(struct control *control)
{
	free(control->buffer);
	control->buffer = NULL;
	if (control->fd >= 0)
		close(control->fd);
	control->fd = -1;
}

/* Ready for `events`, or a failure. */
static int wait_for(struct control *control, short events, uint64_t wait_ns, bool stop,
		    struct failure *failure)
{
	uint64_t deadline = now_ns() + wait_ns;

	for (;;) {
		struct pollfd poll_fd = { .fd = control->fd, .events = events };
		int got = poll(&poll_fd, 1, TICK_MS);

		if (got > 0)
			return 0;
		if (got < 0 && errno != EINTR)
			return fail(failure, "the control connection: %s", strerror(errno));
		if (stop && migrate_cancelled()) {
			failure->cancelled = true;
			return fail(failure, "cancelled");
		}
		if (now_ns() >= deadline)
			return fail(failure, "the %s has not answered for %.1f s", control->peer,
				    (double)wait_ns / 1e9);
	}
}

int control_send2(struct control *control, enum control_type type, const void *a, size_t a_bytes,
		  const void *b, size_t b_bytes, struct failure *failure)
{
	struct control_head head = { CONTROL_MAGIC, type, (uint32_t)(a_bytes + b_bytes) };
	struct iovec iov[3] = {
		{ &head, sizeof(head) }, { (void *)a, a_bytes }, { (void *)b, b_bytes },
	};
	struct iovec *at = iov;
	size_t left = sizeof(head) + a_bytes + b_bytes;

	while (left) {
		struct msghdr message = { .msg_iov = at, .msg_iovlen = (size_t)(iov + 3 - at) };
		ssize_t sent = sendmsg(control->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		int err;

		if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
			err = wait_for(control, POLLOUT, control->stall_ns, true, failure);
			if (err)
				return err;
			continue;
		}
		if (sent < 0)
			return fail(failure, "the control connection broke: %s", strerror(errno));
		left -= (size_t)sent;
		while (left && (size_t)sent >= at->iov_len)
			sent -= (ssize_t)at++->iov_len;
		at->iov_base = (uint8_t *)at->iov_base + sent;
		at->iov_len -= (size_t)sent;
	}
	return 0;
}

int control_send(struct control *control, enum control_type type, const void *payload, size_t length,
		 struct failure *failure)
{
	return control_send2(control, type, payload, length, NULL, 0, failure);
}

static int read_exactly(struct control *control, void *to, size_t length, uint64_t wait_ns, bool stop,
			struct failure *failure)
{
	while (length) {
		ssize_t got = recv(control->fd, to, length, MSG_DONTWAIT);

		if (got > 0) {
			to = (uint8_t *)to + got;
			length -= (size_t)got;
			continue;
		}
		if (got == 0)
			return fail(failure, "the %s has closed the connection", control->peer);
		if (errno != EAGAIN && errno != EINTR)
			return fail(failure, "the control connection broke: %s", strerror(errno));

		int err = wait_for(control, POLLIN, wait_ns, stop, failure);

		if (err)
			return err;
	}
	return 0;
}

static int read_message(struct control *control, uint32_t *type_ret, uint64_t wait_ns, bool stop,
			struct failure *failure)
{
	struct control_head head;
	int err = read_exactly(control, &head, sizeof(head), wait_ns, stop, failure);

	if (err)
		return err;
	if (head.magic != CONTROL_MAGIC || head.length > CONTROL_MAX_BYTES)
		return fail(failure, "the control connection is corrupt, or the %s is something else",
			    control->peer);
	control->length = head.length;
	*type_ret = head.type;
	return read_exactly(control, control->buffer, head.length, wait_ns, stop, failure);
}

/* Only printable bytes of the peer reach our terminal. */
static int peer_failed(struct control *control, struct failure *failure)
{
	char text[300];
	size_t length = control->length < sizeof(text) - 1 ? control->length : sizeof(text) - 1;

	for (size_t i = 0; i < length; i++)
		text[i] = control->buffer[i] >= ' ' && control->buffer[i] < 127 ?
			  (char)control->buffer[i] : '?';
	text[length] = '\0';
	return fail(failure, "%s: %s", control->peer, text);
}

int control_expect(struct control *control, enum control_type type, size_t length, uint64_t wait_ns,
		   bool stop, struct failure *failure)
{
	uint32_t got = 0;
	int err = read_message(control, &got, wait_ns ? wait_ns : control->stall_ns, stop, failure);

	if (err)
		return err;
	if (got == CONTROL_ERROR)
		return peer_failed(control, failure);
	if (got == CONTROL_CANCEL) {
		failure->cancelled = true;
		return fail(failure, "the source has cancelled");
	}
	if (got != type || (length != SIZE_MAX && control->length != length))
		return fail(failure, "message %u of %zu bytes on the control connection, %u expected",
			    got, control->length, type);
	return 0;
}

bool control_last_words(struct control *control, uint64_t wait_ns, struct failure *failure)
{
	struct failure mute = { .cancelled = false };
	uint32_t type;

	/* Anything else may come first: what was said before it went wrong. */
	while (!read_message(control, &type, wait_ns, false, &mute)) {
		if (type == CONTROL_CANCEL) {
			failure->cancelled = true;
			fail(failure, "the source has cancelled");
			return true;
		}
		if (type == CONTROL_ERROR) {
			peer_failed(control, failure);
			return true;
		}
	}
	return false;
}

/* ---- sockets ---- */

static int resolve(const char *where, bool passive, struct addrinfo **list_ret, struct failure *failure)
{
	struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM, .ai_flags = passive ? AI_PASSIVE : 0,
	};
	char host[256];
	const char *colon = strrchr(where, ':');
	size_t length = colon ? (size_t)(colon - where) : 0;
	const char *begin = where;
	int err;

	if (!colon || !colon[1] || length >= sizeof(host))
		return fail(failure, "'%s' is not HOST:PORT", where);
	if (length >= 2 && where[0] == '[' && where[length - 1] == ']') {
		begin++;
		length -= 2;
	}
	memcpy(host, begin, length);
	host[length] = '\0';
	err = getaddrinfo(length ? host : NULL, colon + 1, &hints, list_ret);
	return err ? fail(failure, "%s: %s", where, gai_strerror(err)) : 0;
}

int socket_listen(const char *where, struct failure *failure)
{
	struct addrinfo *list;
	int on = 1, fd = -1;

	if (resolve(where, true, &list, failure))
		return -1;
	for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
		if (fd < 0)
			continue;
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, 4) < 0) {
			int saved = errno;

			close(fd);
			errno = saved;
			fd = -1;
		}
	}
	if (fd < 0)
		fail(failure, "cannot listen on %s: %s", where, strerror(errno));
	freeaddrinfo(list);
	return fd;
}

int socket_accept(int listener, uint64_t wait_ns, struct failure *failure)
{
	uint64_t deadline = now_ns() + wait_ns;

	for (;;) {
		struct pollfd poll_fd = { .fd = listener, .events = POLLIN };

		if (poll(&poll_fd, 1, TICK_MS) > 0) {
			int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

			if (fd >= 0)
				return fd;
		}
		if (migrate_cancelled()) {
			failure->cancelled = true;
			fail(failure, "interrupted");
			return -1;
		}
		if (wait_ns && now_ns() >= deadline) {
			fail(failure, "nobody has connected for %.1f s", (double)wait_ns / 1e9);
			return -1;
		}
	}
}

static int connect_once(const struct addrinfo *a, uint64_t wait_ns)
{
	int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
	struct timeval patience = {
		(time_t)(wait_ns / 1000000000u), (suseconds_t)(wait_ns % 1000000000u / 1000),
	};

	if (fd < 0)
		return -1;
	/* Linux applies the send timeout to connect() too. */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
		return fd;

	int saved = errno;

	close(fd);
	errno = saved == EINPROGRESS ? ETIMEDOUT : saved;
	return -1;
}

int socket_connect(const char *where, uint64_t wait_ns, struct failure *failure)
{
	struct addrinfo *list;
	int fd = -1;

	if (resolve(where, false, &list, failure))
		return -1;
	for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
		fd = connect_once(a, wait_ns);
	if (fd < 0)
		fail(failure, "cannot connect to %s: %s", where, strerror(errno));
	freeaddrinfo(list);
	return fd;
}

unsigned socket_port(int fd)
{
	struct sockaddr_storage address;
	socklen_t length = sizeof(address);

	if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		return 0;
	if (address.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
	return ntohs(((struct sockaddr_in *)&address)->sin_port);
}
