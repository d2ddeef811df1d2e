if(SSMKIT_BUILD_TESTS)
    add_test(NAME examples/segments COMMAND segments)
endif()
