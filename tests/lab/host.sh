# Sourced by ./test, ./quickstart and the like: packages and builds. Needs Debian 12 or 13, as root or with sudo.
# shellcheck shell=bash disable=SC2034  # the lists are for who sources this

BUILD_PACKAGES=(g++ cmake ninja-build ccache pkg-config libmysqlcppconn-dev rapidjson-dev libarchive-dev
  libcurl4-openssl-dev libyaml-cpp-dev libboost-program-options-dev libboost-dev libspdlog-dev libfmt-dev libsystemd-dev libssl-dev
  libxxhash-dev libsqlite3-dev zlib1g-dev)
SERVER_PACKAGES=(mariadb-server-core mariadb-client-core mariadb-backup python3 procps)
CLANG=16  # Debian 12's default, 14, cannot compile coroutines of C++20
LINT_PACKAGES=(clang-format-14 black python3-pyflakes shellcheck)  # the tree is held to Debian 12's versions (tests/lint)
if grep -q '^VERSION_ID="13"' /etc/os-release 2> /dev/null; then
  CLANG=19
  LINT_PACKAGES=()
fi
TEST_PACKAGES=("${LINT_PACKAGES[@]}"
  libgtest-dev libgmock-dev "clang-$CLANG" "libclang-rt-$CLANG-dev" "llvm-$CLANG" python3-swift python3-swiftclient memcached keystone python3-keystonemiddleware uwsgi-plugin-python3
  curl jq zstd lz4 gzip iproute2 util-linux mount e2fsprogs openssl chromium
  binutils dpkg-dev fakeroot lintian rpm rpmlint mmdebstrap systemd prometheus)
command -v npm > /dev/null || TEST_PACKAGES+=(npm)  # MySQL 5.6 comes by it; a newer one than Debian's serves as well

# What bench/run holds us against, beside what the tests need.
BENCH_PACKAGES=(rclone)

die() {
  echo "$1" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo > /dev/null; then
    sudo "$@"
  else
    die "Installing packages needs root, and there is no sudo: run as root, or install yourself: ${missing[*]}"
  fi
}

# Debian starts services when it installs them; the tests bring their own servers.
policy=/usr/sbin/policy-rc.d
forbid_service_start() {
  if [ -e $policy ]; then
    [ -e $policy.before-guestagent ] || as_root mv $policy $policy.before-guestagent
  fi
  printf '#!/bin/sh\n# guestagent: no service starts while its packages are installed\nexit 101\n' | as_root tee $policy > /dev/null
  as_root chmod 755 $policy
}
allow_service_start() {
  if [ -e $policy.before-guestagent ]; then
    as_root mv $policy.before-guestagent $policy
  else
    as_root rm -f $policy
  fi
}

# need_packages NAME…: installs those that are missing. No network is touched when all are there.
need_packages() {
  command -v apt-get > /dev/null || die "This needs Debian 12 or 13 (apt-get was not found)."
  local present
  present=$(dpkg-query -W -f '${db:Status-Status} ${binary:Package}\n' "$@" 2> /dev/null | sed -n 's/^installed \([^:]*\).*/\1/p') || true
  missing=()
  for package in "$@"; do
    grep -qxF -- "$package" <<< "$present" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "Installing ${#missing[@]} packages: ${missing[*]}"
  local log status=0
  log=$(mktemp)
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=900 -o Acquire::Retries=3)
  trap allow_service_start EXIT
  trap 'exit 130' INT TERM
  forbid_service_start
  { as_root "${apt[@]}" update && as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } > "$log" 2>&1 || status=$?
  allow_service_start
  trap - EXIT INT TERM
  if [ $status != 0 ]; then
    tail -n 25 "$log" >&2
    die "The packages could not be installed; the whole output is in $log."
  fi
  rm -f "$log"
}

# build PRESET [TARGET…]: configures when needed, then builds; its output only when something goes wrong or is compiled.
build() {
  local preset=$1
  shift
  local dir=build/$preset launcher=()
  command -v ccache > /dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  [ "$preset" != asan ] || launcher+=("-DCMAKE_CXX_COMPILER=clang++-$CLANG")
  mkdir -p "$dir"
  exec 9> "$dir/.lock"
  flock 9
  if ! cmake --preset "$preset" "${launcher[@]}" "${CONFIGURE[@]}" > "$dir/configure.log" 2>&1; then
    cat "$dir/configure.log" >&2
    die "cmake could not configure preset $preset."
  fi
  local status=0
  ninja -C "$dir" -j "${JOBS:-$(nproc)}" "$@" 9>&- || status=$?
  exec 9>&-
  return $status
}
