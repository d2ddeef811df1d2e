# Packages: what is installed is used, otherwise a pinned release is fetched.

include_guard()
include(FetchContent)

# ssmkit_headers(<package> HEADER <file> TARGET <target> REPOSITORY <url> TAG <tag> SUBDIRECTORY <dir>)
#
# Sets <package>_HEADERS to the directory from which <file> is included. Only the directory is taken, not the target:
# Debian's xsimd target, for one, links an xtl that it does not bring.
function(ssmkit_headers package)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "HEADER;TARGET;REPOSITORY;TAG;SUBDIRECTORY" "")
    find_package(${package} QUIET)
    if(TARGET ${arg_TARGET})
        get_target_property(candidates ${arg_TARGET} INTERFACE_INCLUDE_DIRECTORIES)
    endif()
    # PATHS last: the package file of an installation that has moved may name a directory that is not there.
    find_path(${package}_HEADERS ${arg_HEADER} HINTS ${candidates} NO_CMAKE_FIND_ROOT_PATH
        DOC "Directory from which ${arg_HEADER} is included")
    if(NOT ${package}_HEADERS)
        message(STATUS "${package} is not installed: fetching ${arg_TAG} from ${arg_REPOSITORY}")
        # A SOURCE_SUBDIR that does not exist: the sources are wanted, not the project.
        FetchContent_Declare(${package} GIT_REPOSITORY ${arg_REPOSITORY} GIT_TAG ${arg_TAG} GIT_SHALLOW ON
            SOURCE_SUBDIR headers-only)
        FetchContent_MakeAvailable(${package})
        string(TOLOWER ${package} lower)
        set(${package}_HEADERS ${${lower}_SOURCE_DIR}/${arg_SUBDIRECTORY} CACHE PATH "" FORCE)
    elseif(CMAKE_CROSSCOMPILING AND ${package}_HEADERS STREQUAL "/usr/include")
        # The host's header, not all of the host's headers.
        cmake_path(GET arg_HEADER PARENT_PATH folder)
        set(links ${PROJECT_BINARY_DIR}/host_headers)
        file(MAKE_DIRECTORY ${links})
        file(CREATE_LINK /usr/include/${folder} ${links}/${folder} SYMBOLIC)
        set(${package}_HEADERS ${links} CACHE PATH "" FORCE)
    endif()
endfunction()
