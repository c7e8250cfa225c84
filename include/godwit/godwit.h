/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GODWIT_GODWIT_H
#define GODWIT_GODWIT_H

/* The whole public interface. A RAM saver needs source.h or destination.h alone. */
#include <godwit/batch.h>
#include <godwit/common.h>
#include <godwit/destination.h>
#include <godwit/params.h>
#include <godwit/source.h>
#include <godwit/stats.h>
#include <godwit/throttle.h>

#endif
