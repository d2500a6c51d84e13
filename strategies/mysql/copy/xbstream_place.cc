#include "strategies/mysql/copy/xbstream_place.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "strategies/mysql/copy/copy_names.h"
#include "stream/crc32.h"

namespace guestagent::mysql {
namespace {

constexpr unsigned kFileMode = 0660, kDirMode = 0700;
// What one task writes at least: thousands of small files are not thousands of tasks.
constexpr std::uint64_t kBatchBytes = std::uint64_t{4} << 20;

Error damaged(std::string_view path, const std::string& why) {
  return Error(Code::data_loss, "extracting the copy: " + printable(path, 120) + ": " + why, "take the snapshot again");
}

Error bad_sum(std::string_view path) {
  return damaged(path, "its bytes in the copy are not those that the tool wrote (CRC-32)");
}

Error not_written(const fs::path& path, int err) {
  Error error = system_error("extracting the copy: " + path.string(), err);
  if (error.code() != Code::resource_exhausted || err == EMFILE || err == ENFILE) return error;
  return Error(error.code(), error.what(), "free space there, or set mysql.staging_dir to a larger file system");
}

Error no_xbstream() {
  return Error(Code::data_loss, "extracting the copy: the stream is not of the xbstream format, or is cut",
               "take the snapshot again");
}

}  // namespace

struct XbstreamPlacer::File {
  std::string path;
  UniqueFd fd;
  std::uint64_t next = 0;  // where the stream goes on in it
  bool ends_in_hole = false;
};

struct XbstreamPlacer::Write {
  std::shared_ptr<File> file;
  std::uint64_t offset = 0;
  Bytes bytes;
};

// Writes of one piece, and the chunks that are whole in them.
struct XbstreamPlacer::Batch {
  struct Sum {
    std::size_t first = 0, last = 0;  // of `writes`
    std::uint32_t before = 0, expected = 0;
    std::string path;
  };
  std::shared_ptr<Piece> piece;  // keeps the bytes
  std::vector<Write> writes;
  std::vector<Sum> sums;
  std::uint64_t bytes = 0;

  // Once: bytes and files are let go of with the return, not with the future that waits for it.
  static void run(std::unique_ptr<Batch> batch) {
    const auto& [piece, writes, sums, bytes] = *batch;
    for (const Sum& sum : sums) {
      std::uint32_t crc = sum.before;
      for (std::size_t i = sum.first; i < sum.last; ++i) crc = crc32(crc, writes[i].bytes);
      if (crc != sum.expected) throw bad_sum(sum.path);
    }
    for (const Write& write : writes) {
      std::uint64_t at = write.offset;
      Bytes rest = write.bytes;
      while (!rest.empty()) {
        const ssize_t n = ::pwrite(write.file->fd.get(), rest.data(), rest.size(), static_cast<off_t>(at));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) throw not_written(write.file->path, errno);
        at += static_cast<std::uint64_t>(n);
        rest = rest.subspan(static_cast<std::size_t>(n));
      }
      // On its way to the disk while more comes, so that the flush at the end has little to do. Not all file systems
      // know it.
      ::sync_file_range(write.file->fd.get(), static_cast<off64_t>(write.offset),
                        static_cast<off64_t>(write.bytes.size()), SYNC_FILE_RANGE_WRITE);
    }
  }
};

XbstreamPlacer::XbstreamPlacer(const HeldDir& dir, XbstreamChunks::Maker maker, unsigned threads, PlacedRecord& record)
    : dir_(dir), record_(record), chunks_(maker), workers_(threads) {
  for (const auto& [path, known] : record.placed().files) {
    if (known.ended) continue;
    auto file = std::make_shared<File>();
    file->path = path;
    file->fd = open_below(dir_.fd(), path, O_WRONLY | O_NOFOLLOW);
    if (!file->fd) throw not_written(dir_.path() / path, errno);
    file->next = known.size;
    open_.emplace(path, std::move(file));
  }
}

XbstreamPlacer::~XbstreamPlacer() = default;

void XbstreamPlacer::take(Piece piece) {
  piece_ = std::make_shared<Piece>(std::move(piece));
  before_seen_ = 0;
  for (const Bytes bytes : piece_->bytes.chunks()) {
    seen_ = bytes;
    chunks_.see(bytes, *this);
    before_seen_ += bytes.size();
  }
  if (chunks_.lost()) throw no_xbstream();
  send();
  Taken taken{piece_->number, {}, chunks_.at_boundary(), std::move(sent_)};
  sent_.clear();
  if (taken.resumable) taken.said = std::exchange(said_, {});
  piece_.reset();
  taken_.push_back(std::move(taken));
  settle(false);
}

void XbstreamPlacer::finish() {
  if (!chunks_.at_boundary()) throw no_xbstream();
  settle(true);
  if (!open_.empty()) throw damaged(open_.begin()->first, "the copy ends before this file does");
}

void XbstreamPlacer::chunk(const XbstreamChunk& chunk) {
  using Type = XbstreamChunk::Type;
  if (chunk.path != (into_ ? std::string_view(into_->path) : std::string_view())) check_copy_name(chunk.path);
  switch (chunk.type) {
    case Type::end:
      return end(chunk.path);
    case Type::rename:
      check_copy_name(chunk.to);
      return rename(chunk.path, chunk.to);
    case Type::remove:
      return remove(chunk.path);
    case Type::seek: {
      into_ = open(chunk);
      if (chunk.offset < into_->next) throw damaged(chunk.path, "it has the same place twice in the copy");
      into_->next = chunk.offset;
      into_->ends_in_hole = true;
      said_ += PlacedRecord::hole_line(chunk.path, chunk.offset);
      return;
    }
    default:
      break;
  }
  into_ = open(chunk);
  if (chunk.offset != into_->next) throw damaged(chunk.path, "its parts do not follow each other in the copy");
  at_ = chunk.offset;
  left_ = chunk.size;
  hole_ = 0;
  left_of_hole_ = 0;
  crc_ = chunk.crc_of_holes;
  into_->ends_in_hole = false;
  if (left_ > 0) return;
  if (chunk.crc != chunk.crc_of_holes) throw bad_sum(chunk.path);
  end_of_chunk(chunk);
}

void XbstreamPlacer::data(const XbstreamChunk& chunk, Bytes bytes) {
  if (!batch_) batch_ = std::make_unique<Batch>();
  batch_->piece = piece_;
  if (left_ == chunk.size) {
    // What lies in several pieces is summed here, and what lies in one where it is written.
    const std::uint64_t before = before_seen_ + static_cast<std::uint64_t>(bytes.data() - seen_.data());
    in_one_piece_ = left_ <= piece_->bytes.size() - before;
    if (in_one_piece_)
      batch_->sums.push_back({batch_->writes.size(), batch_->writes.size(), chunk.crc_of_holes, chunk.crc, chunk.path});
  }
  if (!in_one_piece_) crc_ = crc32(crc_, bytes);
  left_ -= bytes.size();
  while (!bytes.empty()) {
    std::uint64_t now = bytes.size();
    if (chunk.type == XbstreamChunk::Type::holes) {
      while (left_of_hole_ == 0) {
        at_ += chunk.holes[hole_].left_out;
        left_of_hole_ = chunk.holes[hole_++].bytes;
      }
      now = std::min(now, left_of_hole_);
      left_of_hole_ -= now;
    }
    place(bytes.first(static_cast<std::size_t>(now)));
    bytes = bytes.subspan(static_cast<std::size_t>(now));
  }
  if (in_one_piece_) batch_->sums.back().last = batch_->writes.size();
  if (left_ > 0) return;
  if (!in_one_piece_ && crc_ != chunk.crc) throw bad_sum(chunk.path);
  end_of_chunk(chunk);
  if (batch_->bytes >= kBatchBytes) send();
}

void XbstreamPlacer::place(Bytes bytes) {
  batch_->writes.push_back({into_, at_, bytes});
  batch_->bytes += bytes.size();
  at_ += bytes.size();
}

void XbstreamPlacer::end_of_chunk(const XbstreamChunk& chunk) {
  for (; hole_ < chunk.holes.size(); ++hole_) {
    at_ += chunk.holes[hole_].left_out;
    into_->ends_in_hole = true;
  }
  into_->next = at_;
  if (!chunk.holes.empty()) can_be_recorded_ = false;
  said_ += PlacedRecord::data_line(chunk.path, chunk.offset, chunk.size, chunk.crc);
}

std::shared_ptr<XbstreamPlacer::File> XbstreamPlacer::open(const XbstreamChunk& chunk) {
  if (chunk.replaces && chunk.offset == 0) remove(chunk.path);
  if (const auto known = open_.find(chunk.path); known != open_.end()) return known->second;
  return create(chunk.path);
}

std::shared_ptr<XbstreamPlacer::File> XbstreamPlacer::create(const std::string& path) {
  auto file = std::make_shared<File>();
  file->path = path;
  const UniqueFd parent = open_parent(path);
  file->fd.reset(::openat(parent.get(), fs::path(path).filename().c_str(),
                          O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, kFileMode));
  if (!file->fd && errno == EEXIST) throw damaged(path, "it is in the copy twice");
  if (!file->fd) throw not_written(dir_.path() / path, errno);
  open_.emplace(path, file);
  return file;
}

// The directory that `path` lies in, made where it is not there.
UniqueFd XbstreamPlacer::open_parent(const fs::path& path) {
  UniqueFd at(::openat(dir_.fd(), ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const fs::path& part : path.parent_path()) {
    if (::mkdirat(at.get(), part.c_str(), kDirMode) != 0 && errno != EEXIST)
      throw not_written(dir_.path() / path, errno);
    at.reset(::openat(at.get(), part.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!at && errno == ENOTDIR) throw damaged(path.string(), "what it lies in is a file of the copy");
    if (!at) throw not_written(dir_.path() / path, errno);
  }
  return at;
}

void XbstreamPlacer::end(const std::string& path) {
  const auto known = open_.find(path);
  const std::shared_ptr<File> file = known == open_.end() ? create(path) : known->second;
  // The writes under way stay below that.
  if (file->ends_in_hole && ::ftruncate(file->fd.get(), static_cast<off_t>(file->next)) != 0)
    throw not_written(dir_.path() / path, errno);
  open_.erase(path);
  into_.reset();
  said_ += PlacedRecord::end_line(path);
}

void XbstreamPlacer::rename(const std::string& from, const std::string& to) {
  send();
  settle(true);
  const UniqueFd here = open_parent(from), there = open_parent(to);
  if (::renameat(here.get(), fs::path(from).filename().c_str(), there.get(), fs::path(to).filename().c_str()) != 0) {
    if (errno == ENOENT) throw damaged(from, "it is to be renamed, and is not in the copy");
    throw not_written(dir_.path() / to, errno);
  }
  open_.erase(to);
  if (auto moved = open_.extract(from)) {
    moved.key() = to;
    moved.mapped()->path = to;
    open_.insert(std::move(moved));
  }
  into_.reset();
  said_ += PlacedRecord::rename_line(from, to);
}

// What is not there is removed, for all that anybody needs.
void XbstreamPlacer::remove(const std::string& path) {
  send();
  settle(true);
  const UniqueFd parent = open_parent(path);
  if (::unlinkat(parent.get(), fs::path(path).filename().c_str(), 0) != 0 && errno != ENOENT)
    throw not_written(dir_.path() / path, errno);
  open_.erase(path);
  into_.reset();
  said_ += PlacedRecord::remove_line(path);
}

void XbstreamPlacer::send() {
  if (!batch_) return;
  sent_.push_back(workers_.run([batch = std::move(batch_)]() mutable { Batch::run(std::move(batch)); }));
}

// Records the pieces that are in their place; with `all`, waits for those that are not, and for what was sent of the
// one that is being taken.
void XbstreamPlacer::settle(bool all) {
  const auto ready = [&](std::future<void>& write) {
    return all || write.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  };
  while (!taken_.empty()) {
    Taken& first = taken_.front();
    while (!first.writes.empty() && ready(first.writes.back())) {
      first.writes.back().get();
      first.writes.pop_back();
    }
    if (!first.writes.empty()) return;
    if (first.resumable && can_be_recorded_) record_.add(first.number, first.said);
    taken_.pop_front();
  }
  if (!all) return;
  for (std::future<void>& write : sent_) write.get();
  sent_.clear();
}

}  // namespace guestagent::mysql
