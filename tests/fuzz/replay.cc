// main() of the fuzz targets where there is no libFuzzer: runs every seed, and the same mutations of it at
// every run.
//
//   fuzz_NAME CORPUS [MUTATIONS]   of each seed; default 0
//   fuzz_NAME FILE                 one input, such as a crash that libFuzzer wrote
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxInput = 64 << 10;

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// The input under way, for the handler below.
std::string current;

// Keeps what crashed, to be run again alone.
void keep_input(int) {
  const int fd = ::open("crash-input", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  const bool kept = fd >= 0 && ::write(fd, current.data(), current.size()) == static_cast<ssize_t>(current.size());
  const char* const text = kept ? "crashed; the input is in ./crash-input\n" : "crashed\n";
  [[maybe_unused]] const ssize_t n = ::write(2, text, std::strlen(text));
  ::_exit(1);
}

void run(const std::string& input) {
  current = input;
  // A copy of exactly this size: a read past its end is then seen by the address sanitizer.
  const std::vector<std::uint8_t> bytes(input.begin(), input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

std::string mutated(std::string text, const std::vector<std::string>& seeds, std::mt19937_64& random) {
  const auto below = [&](std::size_t limit) { return limit == 0 ? 0 : random() % limit; };
  for (std::size_t steps = 1 + below(4); steps > 0; --steps) {
    const std::size_t at = below(text.size() + 1), length = below(std::min<std::size_t>(text.size() - at, 64) + 1);
    switch (below(7)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 1:
        if (at < text.size()) text[at] = static_cast<char>(random());
        break;
      case 2:
        text.erase(at, length);
        break;
      case 3:
        text.insert(at, 1 + below(8), static_cast<char>(random()));
        break;
      case 4: {
        const std::string piece = text.substr(at, length);
        for (std::size_t times = 1 + below(below(8) == 0 ? 2000 : 3); times > 0 && text.size() < kMaxInput; --times)
          text.insert(at, piece);
        break;
      }
      case 5: {
        const std::string& other = seeds[below(seeds.size())];
        const std::size_t from = below(other.size() + 1);
        text.replace(at, length, other.substr(from, below(256)));
        break;
      }
      default:
        text.resize(at);
    }
    if (text.size() > kMaxInput) text.resize(kMaxInput);
  }
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s CORPUS|FILE [MUTATIONS]\n", argv[0]);
    return 2;
  }
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, keep_input);
  std::vector<fs::path> files;
  if (fs::is_directory(argv[1])) {
    for (const auto& entry : fs::directory_iterator(argv[1])) files.push_back(entry.path());
  } else {
    files.emplace_back(argv[1]);
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) {
    std::fprintf(stderr, "%s: no seeds\n", argv[1]);
    return 1;
  }
  std::vector<std::string> seeds;
  for (const fs::path& file : files) seeds.push_back(read(file));

  const long mutations = argc > 2 ? std::strtol(argv[2], nullptr, 10) : 0;
  std::mt19937_64 random(20260131);
  std::size_t inputs = 0;
  for (const std::string& seed : seeds) {
    run(seed);
    ++inputs;
    for (long i = 0; i < mutations; ++i, ++inputs) {
      run(mutated(seed, seeds, random));
    }
  }
  std::printf("%zu inputs\n", inputs);
  return 0;
}
