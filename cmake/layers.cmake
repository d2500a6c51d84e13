# ga_layer(NAME DIR… LINKS lib…): a static library from the .cc files directly in each DIR.
function(ga_layer name)
  cmake_parse_arguments(L "" "" "DIRS;LINKS;PRIVATE_LINKS" ${ARGN})
  set(sources)
  foreach(dir IN LISTS L_DIRS)
    file(GLOB found CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${dir}/*.cc)
    list(APPEND sources ${found})
  endforeach()
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  list(SORT sources)
  if(NOT sources)
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/empty.cc CONTENT "")
    set(sources ${CMAKE_BINARY_DIR}/empty.cc)
  endif()
  add_library(ga_${name} STATIC ${sources})
  target_include_directories(ga_${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(ga_${name} PUBLIC ${L_LINKS} PRIVATE ${L_PRIVATE_LINKS})
  ga_precompile(ga_${name})
endfunction()

ga_layer(base DIRS base LINKS Threads::Threads dep_rapidjson PRIVATE_LINKS dep_spdlog)
ga_layer(stream DIRS stream LINKS ga_base PRIVATE_LINKS LibArchive::LibArchive OpenSSL::Crypto PkgConfig::XXHASH ZLIB::ZLIB)
ga_layer(net DIRS net LINKS ga_stream PRIVATE_LINKS Boost::headers CURL::libcurl OpenSSL::SSL PkgConfig::SYSTEMD)
ga_layer(config DIRS config LINKS ga_base PRIVATE_LINKS dep_yaml)
# Each folder below storage/ is a store, or what some of them share.
file(GLOB stores CONFIGURE_DEPENDS LIST_DIRECTORIES true RELATIVE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/storage/*)
list(FILTER stores EXCLUDE REGEX "[.]")
ga_layer(storage DIRS storage ${stores}
         LINKS ga_net ga_config PRIVATE_LINKS OpenSSL::Crypto)
# Each folder below strategies/ is an engine, and those below that its wings.
file(GLOB_RECURSE engines CONFIGURE_DEPENDS LIST_DIRECTORIES true RELATIVE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/strategies/*)
list(FILTER engines EXCLUDE REGEX "[.]")
ga_layer(strategies DIRS strategies ${engines}
         LINKS ga_stream ga_config PRIVATE_LINKS dep_connector OpenSSL::Crypto PkgConfig::SYSTEMD)
ga_layer(agent DIRS agent LINKS ga_storage ga_strategies ga_net
         PRIVATE_LINKS Boost::program_options OpenSSL::SSL PkgConfig::SYSTEMD)

# The controller's page is part of the binary.
set(page_sources)
foreach(pair index.html:kPageIndex page.css:kPageStyle graph.js:kPageGraph page.js:kPageScript)
  string(REPLACE ":" ";" pair ${pair})
  list(GET pair 0 page_file)
  list(GET pair 1 page_name)
  add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/page/${page_name}.cc
                     COMMAND ${CMAKE_COMMAND} -DIN=${CMAKE_SOURCE_DIR}/controller/page/${page_file} -DNAME=${page_name}
                             -DOUT=${CMAKE_BINARY_DIR}/page/${page_name}.cc -P ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
                     DEPENDS ${CMAKE_SOURCE_DIR}/controller/page/${page_file} ${CMAKE_SOURCE_DIR}/cmake/embed.cmake)
  list(APPEND page_sources ${CMAKE_BINARY_DIR}/page/${page_name}.cc)
endforeach()
ga_layer(controller DIRS controller LINKS ga_stream ga_config ga_net
         PRIVATE_LINKS Boost::program_options OpenSSL::SSL PkgConfig::SQLITE PkgConfig::SYSTEMD)
target_sources(ga_controller PRIVATE ${page_sources})

if(EXISTS ${CMAKE_SOURCE_DIR}/agent/main.cc)
  add_executable(guestagent ${CMAKE_SOURCE_DIR}/agent/main.cc)
  target_link_libraries(guestagent PRIVATE ga_agent ga_controller)
  target_compile_definitions(guestagent PRIVATE GUESTAGENT_VERSION="${PROJECT_VERSION}")
endif()
target_compile_definitions(ga_agent PUBLIC GUESTAGENT_VERSION="${PROJECT_VERSION}")
