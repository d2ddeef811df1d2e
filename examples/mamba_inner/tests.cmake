if(SSMKIT_BUILD_TESTS)
    add_test(NAME examples/mamba_inner COMMAND mamba_inner)
endif()
