# All of these are Debian packages. Boost, yaml-cpp and Connector/C++ are linked statically and spdlog is used header-only,
# so that one binary runs on more than one release.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
set(Boost_USE_STATIC_LIBS ON)
find_package(Boost 1.74 REQUIRED COMPONENTS program_options)
find_package(OpenSSL 3 REQUIRED)
find_package(CURL REQUIRED)
find_package(LibArchive REQUIRED)
find_package(ZLIB REQUIRED)
pkg_check_modules(SYSTEMD REQUIRED IMPORTED_TARGET libsystemd)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)

add_library(dep_yaml INTERFACE)
find_library(YAML_CPP_STATIC NAMES libyaml-cpp.a REQUIRED)
target_link_libraries(dep_yaml INTERFACE ${YAML_CPP_STATIC})

add_library(dep_connector INTERFACE)
find_library(CONNECTOR_STATIC NAMES libmysqlcppconn-static.a REQUIRED)
find_library(MARIADB_CLIENT NAMES mariadb libmariadb.so.3 REQUIRED)
target_link_libraries(dep_connector INTERFACE ${CONNECTOR_STATIC} ${MARIADB_CLIENT})

add_library(dep_spdlog INTERFACE)
target_compile_definitions(dep_spdlog INTERFACE SPDLOG_FMT_EXTERNAL FMT_HEADER_ONLY SPDLOG_NO_THREAD_ID)

add_library(dep_rapidjson INTERFACE)
# A failed assertion in a parser must be an error, not an abort: base/json.cc checks types before it reads.
target_compile_definitions(dep_rapidjson INTERFACE RAPIDJSON_HAS_STDSTRING=1)
