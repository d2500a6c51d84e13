#include "stream/tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "base/held_dir.h"
#include "base/text.h"

namespace guestagent {
namespace {

constexpr std::size_t kBlock = std::size_t{1} << 20;
constexpr std::size_t kRecord = 512;           // tar's unit
constexpr std::size_t kMaxPath = 4096;         // the kernel's own limit
constexpr std::size_t kEndMark = 2 * kRecord;  // zeros that end an archive

using ArchivePtr = std::unique_ptr<archive, int (*)(archive*)>;

std::string archive_reason(archive* a) {
  const char* text = archive_error_string(a);
  return text == nullptr ? "unknown error" : text;
}

class TarSource : public ByteSource {
 public:
  explicit TarSource(const fs::path& dir) : dir_(dir), root_(dir), block_(kBlock) {
    if (archive_ == nullptr || entry_ == nullptr) throw std::bad_alloc();
    check(archive_write_set_format_pax_restricted(archive_.get()));
    // Names are bytes: what the file system has is what comes out again, under any locale.
    check(archive_write_set_options(archive_.get(), "hdrcharset=BINARY"));
    check(archive_write_set_bytes_per_block(archive_.get(), 0));
    check(archive_write_open(archive_.get(), this, nullptr, take, nullptr));
    std::error_code failed;
    next_ = fs::recursive_directory_iterator(dir_, failed);
    if (failed) throw system_error("archiving " + dir_.string(), failed.value());
  }

  std::size_t read(std::span<std::byte> into) override {
    while (given_ == pending_.size()) {
      if (closed_) return 0;
      pending_.clear();
      given_ = 0;
      step();
    }
    const std::size_t n = std::min(into.size(), pending_.size() - given_);
    std::memcpy(into.data(), pending_.data() + given_, n);
    given_ += n;
    return n;
  }

 private:
  // libarchive calls it, so no exception may leave it.
  static la_ssize_t take(archive*, void* self, const void* data, std::size_t size) {
    auto* const source = static_cast<TarSource*>(self);
    try {
      const auto* const bytes = static_cast<const std::byte*>(data);
      source->pending_.insert(source->pending_.end(), bytes, bytes + size);
      return static_cast<la_ssize_t>(size);
    } catch (...) {
      source->error_ = std::current_exception();
      return -1;
    }
  }

  void check(int result) const {
    if (error_) std::rethrow_exception(error_);
    if (result < ARCHIVE_OK)
      throw Error(Code::internal, "archiving " + dir_.string() + ": " + archive_reason(archive_.get()));
  }

  void step() {
    if (file_) {
      send_block();
    } else if (next_ == fs::recursive_directory_iterator()) {
      check(archive_write_close(archive_.get()));
      closed_ = true;
    } else {
      begin_entry();
    }
  }

  void begin_entry() {
    path_ = next_->path();
    const fs::path below = path_.lexically_relative(dir_);
    struct stat info {};
    // Not blocking: a named pipe that nobody writes must not hang the agent.
    file_ = open_below(root_.fd(), below, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (!file_ && errno == ELOOP)
      throw Error(Code::failed_precondition, "archiving " + path_.string() + ": neither a file nor a directory");
    if (!file_ || ::fstat(file_.get(), &info) != 0) throw system_error("archiving " + path_.string(), errno);
    const bool regular = S_ISREG(info.st_mode);
    if (!regular && !S_ISDIR(info.st_mode)) {
      throw Error(Code::failed_precondition, "archiving " + path_.string() + ": neither a file nor a directory");
    }
    archive_entry_clear(entry_.get());
    archive_entry_set_pathname(entry_.get(), below.c_str());
    archive_entry_set_filetype(entry_.get(), regular ? AE_IFREG : AE_IFDIR);
    archive_entry_set_perm(entry_.get(), info.st_mode & 07777);
    archive_entry_set_mtime(entry_.get(), info.st_mtim.tv_sec, 0);
    if (regular) {
      left_ = static_cast<std::uint64_t>(info.st_size);
      archive_entry_set_size(entry_.get(), info.st_size);
    }
    check(archive_write_header(archive_.get(), entry_.get()));
    if (!regular || left_ == 0) file_.reset();
    std::error_code failed;
    next_.increment(failed);
    if (failed) throw system_error("archiving " + dir_.string(), failed.value());
  }

  void send_block() {
    const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(left_, block_.size()));
    const ssize_t n = ::read(file_.get(), block_.data(), wanted);
    if (n < 0 && errno == EINTR) return;
    if (n < 0) throw system_error("archiving " + path_.string(), errno);
    if (n == 0) throw Error(Code::data_loss, "archiving " + path_.string() + ": it became shorter meanwhile");
    const la_ssize_t sent = archive_write_data(archive_.get(), block_.data(), static_cast<std::size_t>(n));
    check(sent == n ? ARCHIVE_OK : ARCHIVE_FATAL);
    left_ -= static_cast<std::uint64_t>(n);
    if (left_ == 0) file_.reset();
  }

  const fs::path dir_;
  const HeldDir root_;
  std::vector<std::byte> block_, pending_;
  std::size_t given_ = 0;  // of pending_
  std::exception_ptr error_;
  bool closed_ = false;
  fs::recursive_directory_iterator next_;
  fs::path path_;
  UniqueFd file_;
  std::uint64_t left_ = 0;  // of the file
  std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry_{archive_entry_new(), archive_entry_free};
  ArchivePtr archive_{archive_write_new(), archive_write_free};  // last: it writes to the rest when it goes
};

Error damaged(const std::string& why) {
  return Error(Code::data_loss, "unpacking the archive: " + why, "take the snapshot again");
}

// What a message may show of a name that came from outside.
std::string shown(std::string_view name) {
  return '"' + printable(name, 120) + '"';
}

// Feeds libarchive, and sees what it does not tell: that the archive's end mark was there and that nothing follows it.
class Input {
 public:
  Input(ByteSource& stream, const std::function<void()>& between)
      : stream_(stream), between_(between), block_(kBlock) {}

  static la_ssize_t read(archive*, void* self, const void** data) {
    auto* const input = static_cast<Input*>(self);
    try {
      *data = input->block_.data();
      return static_cast<la_ssize_t>(input->fill());
    } catch (...) {
      input->error_ = std::current_exception();
      return -1;
    }
  }

  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

  // The rest of the stream, after the end mark.
  void drain(std::uint64_t archive_end) {
    while (fill() != 0) {
    }
    if (size_ % kRecord != 0 || size_ < kEndMark || zeros_ < kEndMark)
      throw damaged("it is cut: its end mark is missing");
    if (size_ - zeros_ > archive_end) throw damaged("something follows its end");
  }

 private:
  std::size_t fill() {
    between_();
    const std::size_t n = stream_.read(block_);
    size_ += n;
    const auto last = std::find_if(block_.rend() - static_cast<std::ptrdiff_t>(n), block_.rend(),
                                   [](std::byte b) { return b != std::byte{0}; });
    const auto tail = static_cast<std::uint64_t>(last - (block_.rend() - static_cast<std::ptrdiff_t>(n)));
    zeros_ = tail == n ? zeros_ + n : tail;
    return n;
  }

  ByteSource& stream_;
  const std::function<void()>& between_;
  std::vector<std::byte> block_;
  std::exception_ptr error_;
  std::uint64_t size_ = 0, zeros_ = 0;  // bytes so far, and how many of the last are zero
};

// The path below the directory, as given in the archive; "" for the directory itself.
fs::path safe_path(const char* name) {
  if (name == nullptr || *name == '\0') throw damaged("an entry has no name");
  if (std::strlen(name) > kMaxPath)
    throw damaged(shown(name) + ": a path of more than " + std::to_string(kMaxPath) + " bytes");
  const fs::path path = name;
  if (path.is_absolute()) throw damaged(shown(name) + ": a path that is not relative");
  fs::path out;
  for (const fs::path& part : path) {
    if (part == "..") throw damaged(shown(name) + ": a path that leads out of the directory");
    if (!part.empty() && part != ".") out /= part;
  }
  return out;
}

void write_all(int fd, const void* data, std::size_t size, const std::string& name) {
  const auto* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = ::write(fd, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_error("writing " + name, errno);
    at += n;
    size -= static_cast<std::size_t>(n);
  }
}

class Unpacker {
 public:
  Unpacker(ByteSource& stream, const fs::path& dir, const std::function<bool(std::string_view)>& wanted,
           const std::function<void()>& between, const std::function<void(std::string_view, unsigned)>& look)
      : dir_(dir), wanted_(wanted), look_(look), input_(stream, between) {
    if (archive_ == nullptr) throw std::bad_alloc();
  }

  void run() {
    check(archive_read_support_format_tar(archive_.get()));
    check(archive_read_open(archive_.get(), &input_, nullptr, Input::read, nullptr));
    archive_entry* entry = nullptr;
    while (check(archive_read_next_header(archive_.get(), &entry)) != ARCHIVE_EOF) unpack(entry);
    input_.drain(static_cast<std::uint64_t>(archive_read_header_position(archive_.get())));
  }

 private:
  int check(int result) const {
    input_.rethrow();
    if (result < ARCHIVE_OK && result != ARCHIVE_WARN) throw damaged(archive_reason(archive_.get()));
    return result;
  }

  void unpack(archive_entry* entry) {
    const char* const name = archive_entry_pathname(entry);
    const fs::path below = safe_path(name);
    const auto type = archive_entry_filetype(entry);
    if (archive_entry_hardlink(entry) != nullptr || archive_entry_symlink(entry) != nullptr ||
        (type != AE_IFREG && type != AE_IFDIR)) {
      throw damaged(shown(name) + ": neither a file nor a directory");
    }
    if (archive_entry_sparse_count(entry) > 0) throw damaged(shown(name) + ": a file with holes");
    if (look_ && !below.empty()) look_(below.string(), static_cast<unsigned>(archive_entry_mode(entry)));
    if (type == AE_IFDIR) {
      make_directories(below);
    } else if (below.empty()) {
      throw damaged(shown(name) + ": a file in the place of the directory");
    } else {
      make_directories(below.parent_path());
      unpack_file(below, wanted_(below.string()));
    }
  }

  // An archive need not name a directory before what is in it. No link is followed, whoever may have put one there.
  void make_directories(const fs::path& below) {
    UniqueFd at;
    for (const fs::path& part : below) {
      const int parent = at ? at.get() : dir_.fd();
      if (::mkdirat(parent, part.c_str(), 0700) != 0 && errno != EEXIST)
        throw system_error("making the directory " + shown(below.string()), errno);
      UniqueFd next(::openat(parent, part.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!next) throw damaged(shown(below.string()) + ": both a file and a directory");
      at = std::move(next);
    }
  }

  void unpack_file(const fs::path& below, bool keep) {
    UniqueFd file;
    const std::string name = shown(below.string());
    if (keep) {
      file = open_below(dir_.fd(), below, O_WRONLY | O_CREAT | O_EXCL, 0600);
      if (!file && errno == EEXIST) throw damaged(name + ": there twice");
      if (!file) throw system_error("making " + name, errno);
    }
    std::uint64_t at = 0;
    for (;;) {
      const void* data = nullptr;
      std::size_t size = 0;
      la_int64_t offset = 0;
      const int result = archive_read_data_block(archive_.get(), &data, &size, &offset);
      if (check(result) == ARCHIVE_EOF) break;
      if (static_cast<std::uint64_t>(offset) != at) throw damaged(name + ": a file with holes");
      if (keep) write_all(file.get(), data, size, name);
      at += size;
    }
  }

  const HeldDir dir_;
  const std::function<bool(std::string_view)>& wanted_;
  const std::function<void(std::string_view, unsigned)>& look_;
  Input input_;
  ArchivePtr archive_{archive_read_new(), archive_read_free};  // last: it may still read when it goes
};

}  // namespace

std::unique_ptr<ByteSource> tar_directory(const fs::path& dir) {
  return std::make_unique<TarSource>(dir);
}

void untar(ByteSource& stream, const fs::path& dir, const std::function<bool(std::string_view path)>& wanted,
           const std::function<void()>& between,
           const std::function<void(std::string_view path, unsigned mode)>& look) {
  Unpacker(stream, dir, wanted, between, look).run();
}

}  // namespace guestagent
