#include "strategies/mysql/copy/placed_record.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <vector>

#include "base/error.h"
#include "stream/crc32.h"

namespace guestagent::mysql {
namespace {

constexpr std::string_view kHeader = "guestagent placed 1";
constexpr std::size_t kReadBack = std::size_t{1} << 20;
constexpr std::size_t kLongestLine = 16384;  // two paths, and numbers

std::string header_of(const PieceSource::Kind& kind) {
  return std::string(kHeader) + "\t" + kind.format + "\t" + kind.digest;
}

std::vector<std::string_view> fields_of(std::string_view line) {
  std::vector<std::string_view> out;
  for (;;) {
    const std::size_t at = line.find('\t');
    out.push_back(line.substr(0, at));
    if (at == std::string_view::npos) return out;
    line.remove_prefix(at + 1);
  }
}

std::optional<std::uint64_t> number_in(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct RecordLine {
  char kind = 0;
  std::string path, to;
  std::uint64_t offset = 0, size = 0, crc = 0;
};

std::optional<RecordLine> parse_line(std::string_view text) {
  const std::vector<std::string_view> fields = fields_of(text);
  if (fields.size() < 2 || fields[0].size() != 1) return std::nullopt;
  RecordLine line;
  line.kind = fields[0][0];
  line.path = fields[1];
  const auto numbers = [&](std::initializer_list<std::uint64_t*> into) {
    if (fields.size() != 2 + into.size()) return false;
    std::size_t i = 2;
    for (std::uint64_t* each : into) {
      const auto value = number_in(fields[i++]);
      if (!value) return false;
      *each = *value;
    }
    return true;
  };
  bool good = false;
  switch (line.kind) {
    case 'D':
      good = numbers({&line.offset, &line.size, &line.crc});
      break;
    case 'H':
      good = numbers({&line.offset});
      break;
    case 'R':
      good = fields.size() == 3;
      if (good) line.to = fields[2];
      break;
    default:
      good = fields.size() == 2 && std::string_view("EU").find(line.kind) != std::string_view::npos;
  }
  return good ? std::optional(line) : std::nullopt;
}

void remove_record(const fs::path& path) {
  if (::unlink(path.c_str()) == 0) {
    fsync_dir(path.parent_path());
  } else if (errno != ENOENT) {
    throw system_error("removing " + path.string(), errno);
  }
}

// Lines of a file, with where each ends. A line without its end is none.
class RecordLines {
 public:
  explicit RecordLines(int fd) : fd_(fd) {}
  std::optional<std::string> next() {
    for (;;) {
      if (const std::size_t end = held_.find('\n'); end != std::string::npos) {
        std::string line = held_.substr(0, end);
        held_.erase(0, end + 1);
        at_ += end + 1;
        return line;
      }
      if (held_.size() > kLongestLine) return std::nullopt;
      std::array<char, 65536> buffer;
      const ssize_t n = ::read(fd_, buffer.data(), buffer.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return std::nullopt;
      held_.append(buffer.data(), static_cast<std::size_t>(n));
    }
  }
  std::uint64_t at() const { return at_; }

 private:
  int fd_;
  std::string held_;
  std::uint64_t at_ = 0;
};

// Reads files of a directory back, the same one many times in a row.
class ReadBack {
 public:
  explicit ReadBack(const HeldDir& dir) : dir_(dir), buffer_(kReadBack) {}

  bool has(const std::string& path) { return open(path); }

  bool is(const RecordLine& line) {
    if (!open(line.path)) return false;
    std::uint32_t crc = 0;
    std::uint64_t at = line.offset, left = line.size;
    while (left > 0) {
      const ssize_t n =
          ::pread(fd_.get(), buffer_.data(), std::min<std::uint64_t>(left, buffer_.size()), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      crc = crc32(crc, std::as_bytes(std::span(buffer_).first(static_cast<std::size_t>(n))));
      at += static_cast<std::uint64_t>(n);
      left -= static_cast<std::uint64_t>(n);
    }
    return crc == line.crc;
  }

  // A file system that cannot tell says that there is data.
  bool is_hole(const std::string& path, std::uint64_t from, std::uint64_t to) {
    if (!open(path)) return false;
    const off_t data = ::lseek(fd_.get(), static_cast<off_t>(from), SEEK_DATA);
    return data < 0 ? errno == ENXIO : static_cast<std::uint64_t>(data) >= to;
  }

 private:
  bool open(const std::string& path) {
    if (path == path_ && fd_) return true;
    fd_ = open_below(dir_.fd(), path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    path_ = path;
    struct stat info {};
    return fd_ && ::fstat(fd_.get(), &info) == 0 && S_ISREG(info.st_mode);
  }

  const HeldDir& dir_;
  std::vector<char> buffer_;
  std::string path_;
  UniqueFd fd_;
};

// Whether all that `block` says is true of the directory now; what a later block has moved is not.
bool is_there(const std::vector<RecordLine>& block, const Placed& placed, ReadBack& files) {
  std::map<std::string, std::uint64_t> sizes;
  const auto size_of = [&](const std::string& path) -> std::uint64_t& {
    const auto known = placed.files.find(path);
    return sizes.try_emplace(path, known == placed.files.end() ? 0 : known->second.size).first->second;
  };
  for (const RecordLine& line : block) {
    switch (line.kind) {
      case 'D':
        if (!files.is(line)) return false;
        size_of(line.path) = line.offset + line.size;
        break;
      case 'H':
        if (!files.is_hole(line.path, size_of(line.path), line.offset)) return false;
        size_of(line.path) = line.offset;
        break;
      case 'U':
        size_of(line.path) = 0;
        break;
      case 'E':
        if (!files.has(line.path)) return false;
        break;
      default:
        break;
    }
  }
  return true;
}

void apply_block(const std::vector<RecordLine>& block, Placed& placed) {
  for (const RecordLine& line : block) {
    switch (line.kind) {
      case 'D':
        placed.files[line.path].size = line.offset + line.size;
        break;
      case 'H':
        placed.files[line.path].size = line.offset;
        break;
      case 'E':
        placed.files[line.path].ended = true;
        break;
      case 'R':
        if (auto moved = placed.files.extract(line.path)) {
          placed.files.erase(line.to);
          moved.key() = line.to;
          placed.files.insert(std::move(moved));
        }
        break;
      default:
        placed.files.erase(line.path);
    }
  }
}

// What came after the last whole piece goes.
void leave_only(const Placed& placed, const HeldDir& dir) {
  std::vector<fs::path> strays;
  dir.walk([&](const HeldDir::Entry& entry) {
    if (S_ISDIR(entry.info.st_mode)) return;
    const auto known = placed.files.find(entry.path.string());
    if (known == placed.files.end() || !S_ISREG(entry.info.st_mode)) {
      strays.push_back(entry.path);
      return;
    }
    if (static_cast<std::uint64_t>(entry.info.st_size) == known->second.size) return;
    const UniqueFd fd = open_below(dir.fd(), entry.path, O_WRONLY | O_NOFOLLOW);
    if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(known->second.size)) != 0)
      throw system_error("cutting " + (dir.path() / entry.path).string(), errno);
  });
  for (const fs::path& stray : strays) {
    const UniqueFd parent = stray.has_parent_path() ? open_below(dir.fd(), stray.parent_path(), O_PATH | O_DIRECTORY)
                                                    : UniqueFd(::fcntl(dir.fd(), F_DUPFD_CLOEXEC, 0));
    if (!parent || ::unlinkat(parent.get(), stray.filename().c_str(), 0) != 0)
      throw system_error("removing " + (dir.path() / stray).string(), errno);
  }
}

}  // namespace

fs::path PlacedRecord::path_of(const fs::path& dir) {
  return dir.parent_path() / (dir.filename().string() + ".placed");
}

PlacedRecord::PlacedRecord(const HeldDir& dir, const PieceSource::Kind& kind) : path_(path_of(dir.path())) {
  if (kind.digest.empty()) return;
  write_file_atomic(path_, header_of(kind) + "\n", 0600);
  fd_.reset(::open(path_.c_str(), O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC));
  if (!fd_) throw system_error("recording what was fetched in " + path_.string(), errno);
}

bool PlacedRecord::is_for(const fs::path& dir, const PieceSource::Kind& kind) {
  if (kind.digest.empty()) return false;
  const UniqueFd fd(::open(path_of(dir).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != ::geteuid()) return false;
  RecordLines lines(fd.get());
  return lines.next() == header_of(kind);
}

std::optional<PlacedRecord> PlacedRecord::found(const HeldDir& dir, const PieceSource::Kind& kind, JobContext& job) {
  if (!is_for(dir.path(), kind)) return std::nullopt;
  PlacedRecord record;
  record.path_ = path_of(dir.path());
  record.fd_.reset(::open(record.path_.c_str(), O_RDWR | O_APPEND | O_NOFOLLOW | O_CLOEXEC));
  const std::string doing = "reading what was fetched by " + record.path_.string();
  if (!record.fd_) throw system_error(doing, errno);
  RecordLines lines(record.fd_.get());
  lines.next();
  std::uint64_t good = lines.at();
  ReadBack files(dir);
  std::vector<RecordLine> block;
  std::uint32_t sum = 0;
  while (const std::optional<std::string> text = lines.next()) {
    job.check_cancelled();
    if (!text->starts_with('=')) {
      auto line = parse_line(*text);
      if (!line) break;
      sum = crc32(sum, as_bytes(*text));
      block.push_back(std::move(*line));
      continue;
    }
    const std::vector<std::string_view> fields = fields_of(*text);
    if (fields.size() != 3 || number_in(fields[2]) != sum) break;
    const auto number = number_in(fields[1]);
    if (!number || *number <= record.placed_.pieces || !is_there(block, record.placed_, files)) break;
    apply_block(block, record.placed_);
    record.placed_.pieces = *number;
    block.clear();
    sum = 0;
    good = lines.at();
  }
  if (::ftruncate(record.fd_.get(), static_cast<off_t>(good)) != 0) throw system_error(doing, errno);
  leave_only(record.placed_, dir);
  return record;
}

void PlacedRecord::add(std::uint64_t piece, std::string_view said) {
  if (!fd_) return;
  std::uint32_t sum = 0;
  for (std::string_view rest = said; !rest.empty();) {
    const std::size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    sum = crc32(sum, as_bytes(line));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
  }
  const std::string text = std::string(said) + "=\t" + std::to_string(piece) + "\t" + std::to_string(sum) + "\n";
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t n = ::write(fd_.get(), text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_error("recording what was fetched in " + path_.string(), errno);
    at += static_cast<std::size_t>(n);
  }
}

void PlacedRecord::close() {
  fd_.reset();
  remove_record(path_);
}

void PlacedRecord::forget(const fs::path& dir) {
  remove_record(path_of(dir));
}

std::string PlacedRecord::data_line(std::string_view path, std::uint64_t offset, std::uint64_t size,
                                    std::uint32_t crc) {
  return "D\t" + std::string(path) + "\t" + std::to_string(offset) + "\t" + std::to_string(size) + "\t" +
         std::to_string(crc) + "\n";
}
std::string PlacedRecord::hole_line(std::string_view path, std::uint64_t to) {
  return "H\t" + std::string(path) + "\t" + std::to_string(to) + "\n";
}
std::string PlacedRecord::end_line(std::string_view path) {
  return "E\t" + std::string(path) + "\n";
}
std::string PlacedRecord::remove_line(std::string_view path) {
  return "U\t" + std::string(path) + "\n";
}
std::string PlacedRecord::rename_line(std::string_view from, std::string_view to) {
  return "R\t" + std::string(from) + "\t" + std::string(to) + "\n";
}

}  // namespace guestagent::mysql
