/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * migrate_link.c - the data connection: messages, pacing, counting, stalls
 *
 * Everything that leaves is counted twice: where its bytes are made (frames of the library, pages sent
 * as they are, heads of our own) and where the socket takes them. At the end the two must agree, and
 * agree with what the other end received.
 *
 * The socket blocks for a quarter of a second at most, so that ^C and a peer that has stopped reading
 * are noticed without a system call more than the write itself.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "migrate.h"

#define PATIENCE_US 250000
#define PACED_NS 2000000u		/* what one write may take of the rate */
#define PACED_MIN_BYTES (16u << 10)
#define READ_BYTES (256u << 10)
#define SEND_BUFFER_NS 10000000u	/* a capped link keeps no more than this in the socket */
#define SEND_BUFFER_MIN (128u << 10)
#define SEND_BUFFER_MAX (2u << 20)
#define NR_WAITING (sizeof(((struct link *)0)->head) / sizeof(struct link_head))

_Static_assert(sizeof(struct link_head) == 24, "no holes on the wire");

uint32_t link_check(const struct link_head *head)
{
	struct link_head copy = *head;

	copy.check = 0;
	return (uint32_t)XXH3_64bits(&copy, sizeof(copy));
}

static void make_head(struct link_head *head, enum link_type type, uint32_t length, uint64_t value)
{
	*head = (struct link_head){
		.magic = LINK_MAGIC, .type = (uint16_t)type, .length = length, .value = value,
	};
	head->check = link_check(head);
}

void link_init(struct link *link, int fd, uint64_t bytes_per_s, uint64_t stall_ns)
{
	struct timeval patience = { .tv_usec = PATIENCE_US };
	int on = 1;

	*link = (struct link){ .fd = fd, .stall_ns = stall_ns };
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	link_set_bandwidth(link, bytes_per_s);
}

void link_set_bandwidth(struct link *link, uint64_t bytes_per_s)
{
	pace_init(&link->pace, bytes_per_s);
	/*
	 * What sits in the socket is sent late and counts as downtime at the end. Without a cap the kernel
	 * sizes the buffer itself, and better.
	 */
	if (bytes_per_s) {
		uint64_t want = bytes_per_s * (SEND_BUFFER_NS / 1000000) / 1000;
		int bytes = (int)(want < SEND_BUFFER_MIN ? SEND_BUFFER_MIN :
				  want > SEND_BUFFER_MAX ? SEND_BUFFER_MAX : want);

		setsockopt(link->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	}
}

/* As much of iov as `most` bytes; what is cut off is put back by advance(). */
static size_t trim(struct iovec *iov, int count, size_t most, int *count_ret, size_t *cut_ret)
{
	size_t sum = 0;
	int i;

	*cut_ret = 0;
	for (i = 0; i < count && sum < most; i++)
		sum += iov[i].iov_len;
	if (sum > most) {
		*cut_ret = sum - most;
		iov[i - 1].iov_len -= *cut_ret;
		sum = most;
	}
	*count_ret = i;
	return sum;
}

static void advance(struct iovec **iov, int *count, size_t bytes)
{
	while (*count && bytes >= (*iov)->iov_len) {
		bytes -= (*iov)->iov_len;
		++*iov;
		--*count;
	}
	if (bytes) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + bytes;
		(*iov)->iov_len -= bytes;
	}
}

/* One sendmsg() of at most `bytes`, as often as it takes. */
static int send_some(struct link *link, struct iovec *iov, int count, size_t bytes, struct failure *failure)
{
	uint64_t since = 0;

	while (bytes) {
		struct msghdr message = { .msg_iov = iov, .msg_iovlen = (size_t)count };
		ssize_t sent = sendmsg(link->fd, &message, MSG_NOSIGNAL);

		link->calls++;
		if (sent > 0) {
			/* Relaxed: a counter that the progress line reads; only this thread writes it. */
			atomic_fetch_add_explicit(&link->socket_bytes, (uint64_t)sent,
						  memory_order_relaxed);
			bytes -= (size_t)sent;
			advance(&iov, &count, (size_t)sent);
			since = 0;
			continue;
		}
		if (migrate_cancelled()) {
			failure->cancelled = true;
			return fail(failure, "cancelled");
		}
		if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
			return fail(failure, "the data connection broke while sending: %s",
				    strerror(errno));
		if (!since)
			since = now_ns();
		else if (now_ns() - since > link->stall_ns)
			return fail(failure, "the destination has taken no byte for %.1f s",
				    (double)link->stall_ns / 1e9);
	}
	return 0;
}

static int send_all(struct link *link, struct iovec *iov, int count, struct failure *failure)
{
	size_t most = SIZE_MAX;
	uint64_t begin = now_ns();

	if (link->pace.bytes_per_s) {
		most = link->pace.bytes_per_s * (PACED_NS / 1000) / 1000000;
		if (most < PACED_MIN_BYTES)
			most = PACED_MIN_BYTES;
	}
	while (count) {
		int part;
		size_t cut, bytes = trim(iov, count, most, &part, &cut);
		struct iovec *at = iov;
		struct iovec last = iov[part - 1];
		int err;

		link->paced_ns += pace_wait(&link->pace, bytes);
		err = send_some(link, at, part, bytes, failure);
		if (err)
			return err;
		iov += part;
		count -= part;
		if (cut) {
			iov--;
			count++;
			iov->iov_base = (uint8_t *)last.iov_base + last.iov_len;
			iov->iov_len = cut;
		}
	}
	link->busy_ns += now_ns() - begin;
	return 0;
}

int link_send_preamble(struct link *link, const uint8_t token[LINK_TOKEN_BYTES], struct failure *failure)
{
	struct iovec iov = { .iov_base = (void *)token, .iov_len = LINK_TOKEN_BYTES };

	link->head_bytes += LINK_TOKEN_BYTES;
	return send_all(link, &iov, 1, failure);
}

int link_send_frames(struct link *link, struct iovec *iov, int count, struct failure *failure)
{
	struct link_head head;
	size_t bytes = 0;

	for (int i = 1; i <= count; i++)
		bytes += iov[i].iov_len;
	if (bytes > LINK_MAX_FRAMES)
		return fail(failure, "%zu bytes of frames at once", bytes);
	make_head(&head, LINK_FRAMES, (uint32_t)bytes, 0);
	iov[0] = (struct iovec){ &head, sizeof(head) };
	link->head_bytes += sizeof(head);
	link->frame_bytes += bytes;
	return send_all(link, iov, count + 1, failure);
}

int link_flush(struct link *link, struct failure *failure)
{
	unsigned iovs = link->iovs;

	link->waiting = 0;
	link->iovs = 0;
	return iovs ? send_all(link, link->iov, (int)iovs, failure) : 0;
}

static struct link_head *next_head(struct link *link, enum link_type type, uint32_t length, uint64_t value)
{
	struct link_head *head = &link->head[link->waiting++];

	make_head(head, type, length, value);
	link->iov[link->iovs++] = (struct iovec){ head, sizeof(*head) };
	link->head_bytes += sizeof(*head);
	return head;
}

int link_send_page(struct link *link, uint32_t block, uint64_t page, const void *host, bool zero,
		   struct failure *failure)
{
	uint64_t value = (uint64_t)block << LINK_BLOCK_SHIFT | page;

	if (zero) {
		next_head(link, LINK_ZERO, 0, value);
		link->zero_pages++;
	} else {
		next_head(link, LINK_RAW, GODWIT_PAGE_BYTES, value);
		link->iov[link->iovs++] = (struct iovec){ (void *)host, GODWIT_PAGE_BYTES };
		link->page_bytes += GODWIT_PAGE_BYTES;
		link->raw_pages++;
	}
	return link->waiting == NR_WAITING ? link_flush(link, failure) : 0;
}

int link_send_mark(struct link *link, enum link_type type, uint64_t value, struct failure *failure)
{
	int err = link_flush(link, failure);

	if (err)
		return err;
	next_head(link, type, 0, value);
	return link_flush(link, failure);
}

/* ---- the other end ---- */

int link_reader_init(struct link_reader *reader, int fd, uint64_t stall_ns)
{
	struct timeval patience = { .tv_usec = PATIENCE_US };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	*reader = (struct link_reader){ .fd = fd, .stall_ns = stall_ns, .buffer = malloc(READ_BYTES) };
	return reader->buffer ? 0 : -ENOMEM;
}

void link_reader_fini(struct link_reader *reader)
{
	free(reader->buffer);
	reader->buffer = NULL;
}

int link_read(struct link_reader *reader, void *to, size_t len, struct failure *failure)
{
	uint64_t since = 0;

	while (len) {
		size_t have = reader->end - reader->begin;

		if (have) {
			size_t take = have < len ? have : len;

			memcpy(to, reader->buffer + reader->begin, take);
			reader->begin += take;
			to = (uint8_t *)to + take;
			len -= take;
			continue;
		}
		/* What is wanted goes where it belongs; what came with it is kept. */
		struct iovec iov[2] = { { to, len }, { reader->buffer, READ_BYTES } };
		ssize_t got = readv(reader->fd, iov, 2);

		if (got > 0) {
			size_t direct = (size_t)got < len ? (size_t)got : len;

			reader->received += (uint64_t)got;
			to = (uint8_t *)to + direct;
			len -= direct;
			reader->begin = 0;
			reader->end = (size_t)got - direct;
			since = 0;
			continue;
		}
		if (got == 0)
			return fail(failure, "the data stream was cut off after %llu bytes, %zu short",
				    (unsigned long long)reader->received, len);
		if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
			return fail(failure, "the data connection broke after %llu bytes: %s",
				    (unsigned long long)reader->received, strerror(errno));
		if (migrate_cancelled()) {
			failure->cancelled = true;
			return fail(failure, "interrupted");
		}
		if (!since)
			since = now_ns();
		else if (now_ns() - since > reader->stall_ns)
			return fail(failure, "no byte from the source for %.1f s (after %llu bytes)",
				    (double)reader->stall_ns / 1e9,
				    (unsigned long long)reader->received);
	}
	return 0;
}

int link_read_head(struct link_reader *reader, struct link_head *head, struct failure *failure)
{
	uint64_t at = reader->received - (reader->end - reader->begin);
	int err = link_read(reader, head, sizeof(*head), failure);

	if (err)
		return err;
	if (head->magic != LINK_MAGIC || head->reserved || head->check != link_check(head))
		return fail(failure, "corrupt stream: no message where one must begin, at byte %llu",
			    (unsigned long long)at);

	bool right;

	switch (head->type) {
	case LINK_FRAMES:
		right = head->length && head->length <= LINK_MAX_FRAMES;
		break;
	case LINK_RAW:
		right = head->length == GODWIT_PAGE_BYTES;
		break;
	case LINK_ZERO:
	case LINK_END:
		right = head->length == 0;
		break;
	default:
		right = false;
	}
	if (!right)
		return fail(failure, "corrupt stream: message of type %u and length %u at byte %llu",
			    head->type, head->length, (unsigned long long)at);
	return 0;
}
