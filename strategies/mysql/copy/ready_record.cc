#include "strategies/mysql/copy/ready_record.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "stream/crc32.h"
#include "stream/ordered_tasks.h"

namespace guestagent::mysql {
namespace {

constexpr std::string_view kReadyHeader = "guestagent ready 1";
constexpr std::size_t kReadyBlock = std::size_t{1} << 20;
// A line of each file: a server with a million tables has 200 MiB.
constexpr std::size_t kLargestReady = std::size_t{1} << 30;

std::string ready_header(const PieceSource::Kind& kind) {
  return std::string(kReadyHeader) + "\t" + kind.format + "\t" + kind.digest + "\n";
}

struct ReadyFile {
  std::string path;
  std::uint64_t size = 0;
};

// "PATH SIZE CRC\n", with tabs: a path has no control character (check_copy_name).
std::string line_of(const HeldDir& dir, const ReadyFile& file, JobContext& job) {
  const UniqueFd fd = open_below(dir.fd(), file.path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  const std::string doing = "reading " + (dir.path() / file.path).string();
  if (!fd) throw system_error(doing, errno);
  ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  std::vector<char> buffer(kReadyBlock);
  std::uint32_t crc = 0;
  for (std::uint64_t at = 0;;) {
    job.check_cancelled();
    const ssize_t n = ::pread(fd.get(), buffer.data(), buffer.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_error(doing, errno);
    if (n == 0) break;
    crc = crc32(crc, std::as_bytes(std::span(buffer).first(static_cast<std::size_t>(n))));
    at += static_cast<std::uint64_t>(n);
  }
  return file.path + "\t" + std::to_string(file.size) + "\t" + std::to_string(crc) + "\n";
}

// A line of each regular file, in order of their paths.
std::string lines_of(const HeldDir& dir, JobContext& job) {
  std::vector<ReadyFile> files;
  dir.walk([&](const HeldDir::Entry& entry) {
    if (!S_ISDIR(entry.info.st_mode))
      files.push_back({entry.path.string(), static_cast<std::uint64_t>(entry.info.st_size)});
  });
  std::sort(files.begin(), files.end(), [](const ReadyFile& a, const ReadyFile& b) { return a.path < b.path; });
  WorkerPool workers(std::clamp(std::thread::hardware_concurrency(), 1U, 4U));
  std::vector<std::future<std::string>> lines;
  for (const ReadyFile& file : files) lines.push_back(workers.run([&] { return line_of(dir, file, job); }));
  std::string out;
  for (std::future<std::string>& line : lines) out += line.get();
  return out;
}

// The path that the first differing line has.
std::string first_difference(std::string_view expected, std::string_view found) {
  const auto path = [](std::string_view line) { return std::string(line.substr(0, line.find('\t'))); };
  while (!expected.empty() || !found.empty()) {
    const std::string_view a = expected.substr(0, expected.find('\n')), b = found.substr(0, found.find('\n'));
    if (a != b) return a.empty() || (!b.empty() && path(b) < path(a)) ? path(b) : path(a);
    expected.remove_prefix(std::min(expected.size(), a.size() + 1));
    found.remove_prefix(std::min(found.size(), b.size() + 1));
  }
  return "";
}

}  // namespace

fs::path ready_record_path(const fs::path& dir) {
  return dir.parent_path() / (dir.filename().string() + ".ready");
}

void write_ready(const HeldDir& dir, const PieceSource::Kind& kind, JobContext& job) {
  const std::string text = ready_header(kind) + lines_of(dir, job);
  write_file_atomic(ready_record_path(dir.path()), text + "=\t" + std::to_string(crc32(0, as_bytes(text))) + "\n",
                    0600);
}

bool is_ready_for(const fs::path& dir, const PieceSource::Kind& kind) {
  if (kind.digest.empty()) return false;
  const std::string header = ready_header(kind);
  const UniqueFd fd(::open(ready_record_path(dir).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != ::geteuid()) return false;
  std::string found(header.size(), '\0');
  const ssize_t n = ::pread(fd.get(), found.data(), found.size(), 0);
  return n == static_cast<ssize_t>(header.size()) && found == header;
}

void check_ready(const HeldDir& dir, JobContext& job) {
  const fs::path path = ready_record_path(dir.path());
  std::string text = read_file(path, kLargestReady);
  const std::size_t end = text.rfind("=\t");
  if (end == std::string::npos ||
      text.substr(end) != "=\t" + std::to_string(crc32(0, as_bytes(std::string_view(text).substr(0, end)))) + "\n")
    throw Error(Code::data_loss, "reading " + path.string() + ": it is not as it was written");
  const std::string expected = text.substr(text.find('\n') + 1, end - text.find('\n') - 1);
  const std::string found = lines_of(dir, job);
  if (expected == found) return;
  throw Error(Code::data_loss,
              "checking the staged copy: " + printable((dir.path() / first_difference(expected, found)).string(), 200) +
                  ": it is not as it was when the copy was staged");
}

}  // namespace guestagent::mysql
