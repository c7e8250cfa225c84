# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The library out of its folders, three times:
#
#   godwit           libgodwit.so; installed as godwit::godwit
#   godwit_static    libgodwit.a, one object whose only globals are the public functions; installed as
#                    godwit::godwit_static
#   godwit_internal  the objects as they are, not installed: for tests and tools that look inside

get_property(folders GLOBAL PROPERTY GODWIT_FOLDERS)
if(NOT folders)
	return()
endif()

set(objects "")
set(folder_targets "")
foreach(folder ${folders})
	list(APPEND objects $<TARGET_OBJECTS:godwit_${folder}>)
	list(APPEND folder_targets godwit_${folder})
endforeach()

set(jemalloc "")
if(NOT GODWIT_SANITIZE)
	include(cmake/jemalloc.cmake)
	set(jemalloc ${GODWIT_JEMALLOC_OBJECT})
	# Written once, used by three targets: without one owner a parallel make would write it thrice.
	add_custom_target(godwit_jemalloc DEPENDS ${GODWIT_JEMALLOC_OBJECT})
	set_source_files_properties(${GODWIT_JEMALLOC_OBJECT} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
endif()

set(needs PkgConfig::ZSTD PkgConfig::LZ4 PkgConfig::ZLIB PkgConfig::XXHASH PkgConfig::URCU PkgConfig::HWLOC
	Threads::Threads m ${CMAKE_DL_LIBS})

add_library(godwit_internal STATIC ${objects} ${jemalloc})
set_target_properties(godwit_internal PROPERTIES LINKER_LANGUAGE C)
target_include_directories(godwit_internal PUBLIC ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/src)
target_link_libraries(godwit_internal PUBLIC ${needs})

add_library(godwit SHARED ${objects} ${jemalloc})
add_library(godwit::godwit ALIAS godwit)
set_target_properties(godwit PROPERTIES LINKER_LANGUAGE C
	VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
	LINK_DEPENDS ${CMAKE_SOURCE_DIR}/src/godwit.map)
target_include_directories(godwit PUBLIC
	$<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(godwit PRIVATE ${needs})
# nodelete: threads that used jemalloc run its destructor when they end, be the library open or not.
target_link_options(godwit PRIVATE -Wl,--version-script=${CMAKE_SOURCE_DIR}/src/godwit.map
	-Wl,-z,nodelete -Wl,-z,relro -Wl,-z,now)
if(NOT GODWIT_SANITIZE)
	target_link_options(godwit PRIVATE -Wl,--no-undefined)
endif()
install(TARGETS godwit EXPORT godwit LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})

if(NOT GODWIT_SANITIZE)
	add_dependencies(godwit godwit_jemalloc)
	add_dependencies(godwit_internal godwit_jemalloc)

	# Public functions have default visibility, all else is hidden: what is hidden becomes local, and
	# so do jemalloc's renamed calls, which are default as jemalloc built them.
	set(merged ${CMAKE_BINARY_DIR}/godwit_static.o)
	add_custom_command(OUTPUT ${merged}
		COMMAND ${CMAKE_C_COMPILER} -r -nostdlib -o godwit_static.all.o ${objects} ${jemalloc}
		COMMAND ${CMAKE_OBJCOPY} --localize-hidden --wildcard "--localize-symbol=godwit_je_*"
			godwit_static.all.o ${merged}
		DEPENDS ${folder_targets} ${objects} ${jemalloc} godwit_jemalloc
		WORKING_DIRECTORY ${CMAKE_BINARY_DIR}
		COMMAND_EXPAND_LISTS VERBATIM)
	set_source_files_properties(${merged} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
	add_library(godwit_static STATIC ${merged})
	add_library(godwit::godwit_static ALIAS godwit_static)
	set_target_properties(godwit_static PROPERTIES LINKER_LANGUAGE C OUTPUT_NAME godwit)
	target_include_directories(godwit_static PUBLIC
		$<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
	# By name: an installed package must not name targets that only pkg-config can make.
	target_link_libraries(godwit_static INTERFACE zstd lz4 z xxhash urcu-bp hwloc Threads::Threads m
		${CMAKE_DL_LIBS})
	install(TARGETS godwit_static EXPORT godwit ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()

# godwit.pc finds its prefix from where it lies, so that an installed tree can be moved.
set(pc_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH GODWIT_PC_TO_PREFIX /p/${pc_dir} /p)
string(REGEX REPLACE "/$" "" GODWIT_PC_TO_PREFIX "${GODWIT_PC_TO_PREFIX}")
configure_file(godwit.pc.in ${CMAKE_BINARY_DIR}/godwit.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/godwit.pc DESTINATION ${pc_dir})

include(CMakePackageConfigHelpers)
set(cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/godwit)
configure_package_config_file(cmake/godwitConfig.cmake.in ${CMAKE_BINARY_DIR}/godwitConfig.cmake
	INSTALL_DESTINATION ${cmake_dir})
# 0.x: a new minor version may change the interface.
write_basic_package_version_file(${CMAKE_BINARY_DIR}/godwitConfigVersion.cmake
	COMPATIBILITY SameMinorVersion)
install(EXPORT godwit NAMESPACE godwit:: DESTINATION ${cmake_dir} FILE godwitTargets.cmake)
install(FILES ${CMAKE_BINARY_DIR}/godwitConfig.cmake ${CMAKE_BINARY_DIR}/godwitConfigVersion.cmake
	DESTINATION ${cmake_dir})

install(DIRECTORY include/godwit DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
