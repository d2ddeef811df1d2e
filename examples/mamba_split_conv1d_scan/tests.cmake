if(SSMKIT_BUILD_TESTS)
    add_test(NAME examples/mamba_split_conv1d_scan COMMAND mamba_split_conv1d_scan)
endif()
