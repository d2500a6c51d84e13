#include "storage/spill.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "base/held_dir.h"
#include "base/log.h"
#include "base/unique_fd.h"
#include "stream/digest.h"

namespace guestagent {
namespace {

void write_all(int fd, Bytes data, const fs::path& file) {
  while (!data.empty()) {
    const ssize_t n = ::write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_error("writing a spilled segment: " + file.string(), errno);
    data = data.subspan(static_cast<std::size_t>(n));
  }
}

}  // namespace

fs::path spill_path(const SpillSettings& settings, std::string_view snapshot_id) {
  return settings.dir / snapshot_id;
}

Spill::Spill(const SpillSettings& settings, std::string_view snapshot_id)
    : settings_(settings), dir_(spill_path(settings, snapshot_id)) {}

Spill::~Spill() {
  if (!made_) return;
  try {
    remove_tree(dir_);
  } catch (const Error& error) {
    log_warning("a spill directory stays behind", {{"dir", dir_.string()}, {"error", error.what()}});
  }
}

fs::path Spill::file_of(std::uint64_t number) const {
  return dir_ / std::to_string(number);
}

bool Spill::save(std::uint64_t number, const Buffer& data, std::string_view sha256) {
  const std::uint64_t size = data.size();
  {
    const std::lock_guard lock(mutex_);
    if (size > settings_.max_bytes || bytes_ > settings_.max_bytes - size) return false;
  }
  if (!made_) {
    remove_tree(dir_);  // of a process that died
    make_own_dir(dir_, 0700);
    made_ = true;
  }
  const std::uint64_t free = free_bytes(dir_);
  if (free < size || free - size < settings_.keep_free_bytes) return false;
  const fs::path file = file_of(number);
  const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) throw system_error("creating a spilled segment: " + file.string(), errno);
  try {
    for (const Bytes chunk : data.chunks()) write_all(fd.get(), chunk, file);
  } catch (const Error&) {
    ::unlink(file.c_str());
    throw;
  }
  const std::lock_guard lock(mutex_);
  bytes_ += size;
  saved_[number] = Saved{size, std::string(sha256)};
  return true;
}

Buffer Spill::load(std::uint64_t number) {
  Saved expected;
  {
    const std::lock_guard lock(mutex_);
    expected = saved_.at(number);
  }
  const fs::path file = file_of(number);
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) throw system_error("reading a spilled segment: " + file.string(), errno);
  Buffer data;
  while (true) {
    const std::span<std::byte> room = data.room();
    const ssize_t n = ::read(fd.get(), room.data(), room.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_error("reading a spilled segment: " + file.string(), errno);
    if (n == 0) break;
    data.commit(static_cast<std::size_t>(n));
  }
  if (data.size() != expected.bytes || sha256_hex(data) != expected.sha256) {
    throw Error(Code::data_loss, "reading a spilled segment: " + file.string() + ": it is not what was written there",
                "check the disk under snapshot.spill.dir");
  }
  if (::unlink(file.c_str()) != 0) throw system_error("removing a spilled segment: " + file.string(), errno);
  const std::lock_guard lock(mutex_);
  bytes_ -= expected.bytes;
  saved_.erase(number);
  return data;
}

}  // namespace guestagent
