if(SSMKIT_BUILD_TESTS)
    add_test(NAME examples/s5_forecast COMMAND s5_forecast ${CMAKE_CURRENT_BINARY_DIR}/s5_forecast.svg)
endif()
