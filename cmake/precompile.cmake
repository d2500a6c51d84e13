# ga_precompile(TARGET [tests]): reads the common headers once a target instead of once a file. Off by default, on in the presets: an
# incremental build of one file gains nothing.
option(GUESTAGENT_PCH "Precompile common headers" OFF)
function(ga_precompile target)
  if(NOT GUESTAGENT_PCH)
    return()
  endif()
  if(ARGN STREQUAL "tests")
    target_precompile_headers(${target} PRIVATE ${CMAKE_SOURCE_DIR}/cmake/pch/tests.h)
  else()
    target_precompile_headers(${target} PRIVATE ${CMAKE_SOURCE_DIR}/cmake/pch/common.h)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -fpch-preprocess)  # what ccache needs to see through them
  endif()
endfunction()
