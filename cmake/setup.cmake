# What a fresh Debian machine lacks, for the two commands of README.md. Where apt-get may be used (root, or sudo without a
# password) missing packages are installed; otherwise CMake fetches the libraries (packages.cmake) and a make program must be
# there.

include_guard()

# ssmkit_install(<program or header>=<Debian package> ...)
function(ssmkit_install)
    set(missing)
    foreach(need IN LISTS ARGN)
        string(REGEX MATCH "^([^=]+)=(.+)$" _ ${need})
        set(what ${CMAKE_MATCH_1})
        set(package ${CMAKE_MATCH_2})
        if(what MATCHES "/")
            if(NOT EXISTS ${what})
                list(APPEND missing ${package})
            endif()
        else()
            find_program(found_${what} ${what})
            if(NOT found_${what})
                list(APPEND missing ${package})
            endif()
        endif()
    endforeach()
    list(REMOVE_DUPLICATES missing)
    if(NOT missing)
        return()
    endif()
    list(JOIN missing " " names)
    find_program(apt_get apt-get)
    execute_process(COMMAND id -u OUTPUT_VARIABLE user OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    set(as_root)
    if(NOT user STREQUAL "0")
        execute_process(COMMAND sudo -n true RESULT_VARIABLE refused OUTPUT_QUIET ERROR_QUIET)
        if(refused EQUAL 0)
            set(as_root sudo -n)
        else()
            set(apt_get)
        endif()
    endif()
    if(NOT apt_get)
        message("Not installed: ${names}. Without apt-get and root's rights CMake will fetch the libraries itself.")
        return()
    endif()
    message("Installing with apt-get: ${names}")
    execute_process(COMMAND ${as_root} ${apt_get} update -qq OUTPUT_QUIET)
    execute_process(
        COMMAND ${as_root} ${CMAKE_COMMAND} -E env DEBIAN_FRONTEND=noninteractive
            ${apt_get} install -y -qq --no-install-recommends ${missing}
        RESULT_VARIABLE failed OUTPUT_QUIET)
    if(failed)
        message("apt-get could not install them; CMake will fetch the libraries itself.")
    endif()
endfunction()

# ssmkit_run(<command> <argument> ...): runs it with its output shown, and stops where it fails.
function(ssmkit_run)
    execute_process(COMMAND ${ARGN} RESULT_VARIABLE failed)
    if(failed)
        list(JOIN ARGN " " command)
        message(FATAL_ERROR "failed (${failed}): ${command}")
    endif()
endfunction()

# ssmkit_configure(<build folder> <option> ...): configures the project next to this file.
function(ssmkit_configure folder)
    find_program(ninja ninja)
    set(generator)
    if(ninja AND NOT EXISTS ${folder}/CMakeCache.txt)
        set(generator -G Ninja)
    endif()
    message("Configuring ${folder}")
    cmake_path(GET CMAKE_CURRENT_FUNCTION_LIST_DIR PARENT_PATH source)
    ssmkit_run(${CMAKE_COMMAND} -S ${source} -B ${folder} ${generator} ${ARGN} --log-level=WARNING)
endfunction()

set(SSMKIT_BUILD_NEEDS ninja=ninja-build git=git c++=g++ /usr/include/xsimd/xsimd.hpp=libxsimd-dev
    /usr/include/eigen3/Eigen/Core=libeigen3-dev /usr/include/nlohmann/json.hpp=nlohmann-json3-dev
    /usr/include/CLI/CLI.hpp=libcli11-dev /usr/include/sndfile.h=libsndfile1-dev
    /usr/include/stb/stb_image_write.h=libstb-dev)
set(SSMKIT_TEST_NEEDS /usr/share/doc/catch2=catch2)
cmake_host_system_information(RESULT SSMKIT_CORES QUERY NUMBER_OF_LOGICAL_CORES)

# cmake -P cmake/setup.cmake: the packages alone, for builds that configure themselves.
if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
    ssmkit_install(${SSMKIT_BUILD_NEEDS} ${SSMKIT_TEST_NEEDS})
endif()
