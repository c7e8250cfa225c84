# SPDX-License-Identifier: LGPL-2.1-or-later
#
# jemalloc of our own, in one object file.
#
# The library wants jemalloc's arenas (a finished migration gives its memory back at once) and must not
# replace the host's malloc, nor meet the host's own jemalloc. So: the position independent archive is
# linked into one relocatable object that holds what mallocx() and its kin need, those few are renamed
# to godwit_je_*, and every other symbol (malloc, free, ...) becomes local to that object.
#
# Sets GODWIT_JEMALLOC_OBJECT. An -isystem for <jemalloc/jemalloc.h> is not needed: the header is found
# where the compiler looks, and src/engine/memory.c declares the renamed functions itself.

find_library(GODWIT_JEMALLOC_ARCHIVE NAMES libjemalloc_pic.a
	DOC "jemalloc's position independent archive (Debian: libjemalloc-dev)")
if(NOT GODWIT_JEMALLOC_ARCHIVE)
	message(FATAL_ERROR "libjemalloc_pic.a not found (Debian: apt install libjemalloc-dev)")
endif()

set(calls mallocx rallocx xallocx sallocx dallocx sdallocx nallocx mallctl mallctlnametomib mallctlbymib)
set(wanted "")
set(renamed "")
foreach(call ${calls})
	list(APPEND wanted -Wl,-u,${call})
	# Kept under both names: binutils asks for the new one, llvm-objcopy for the old one.
	list(APPEND renamed --redefine-sym ${call}=godwit_je_${call}
		--keep-global-symbol=${call} --keep-global-symbol=godwit_je_${call})
endforeach()

set(GODWIT_JEMALLOC_OBJECT ${CMAKE_BINARY_DIR}/godwit_jemalloc.o)
add_custom_command(OUTPUT ${GODWIT_JEMALLOC_OBJECT}
	COMMAND ${CMAKE_C_COMPILER} -r -nostdlib -o godwit_jemalloc.all.o ${wanted} ${GODWIT_JEMALLOC_ARCHIVE}
	COMMAND ${CMAKE_OBJCOPY} ${renamed} godwit_jemalloc.all.o ${GODWIT_JEMALLOC_OBJECT}
	DEPENDS ${GODWIT_JEMALLOC_ARCHIVE}
	WORKING_DIRECTORY ${CMAKE_BINARY_DIR}
	COMMENT "jemalloc of our own: ${GODWIT_JEMALLOC_OBJECT}"
	VERBATIM)
