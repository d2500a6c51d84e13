#include "base/journal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>

#include "base/error.h"

#ifdef GUESTAGENT_FAILPOINTS
#include <atomic>

#include "base/clock.h"
#endif

namespace guestagent {
namespace {

constexpr std::size_t kMaxJournalBytes = std::size_t{64} << 20;

Journal::Step read_step(std::string_view line, const std::string& where) {
  const JsonDocument document = parse_json(line, where);
  const JsonReader reader(document, where);
  return {reader.string("step"), to_json(reader.object("data").value())};
}

}  // namespace

Journal::Journal(fs::path path) : path_(std::move(path)) {
  const std::string doing = "opening the journal " + path_.string();
  const bool fresh = ::access(path_.c_str(), F_OK) != 0;
  fd_.reset(::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd_) throw system_error(doing, errno);
  if (fresh) {
    fsync_dir(path_.parent_path());
    return;
  }

  const std::string content = read_file(path_, kMaxJournalBytes);
  std::size_t good = 0;  // bytes of whole steps
  while (good < content.size()) {
    const std::size_t end = content.find('\n', good);
    if (end == std::string::npos) break;
    const std::string where = "line " + std::to_string(steps_.size() + 1) + " of the journal " + path_.string();
    try {
      steps_.push_back(read_step(std::string_view(content).substr(good, end - good), where));
    } catch (const Error& e) {
      if (end + 1 == content.size() && !steps_.empty()) break;
      throw Error(Code::data_loss, doing + ": it is no journal: " + e.what(),
                  "look at the file; remove it only when you know that nothing is left to undo");
    }
    good = end + 1;
  }
  if (good == content.size()) return;
  // What crashed while it wrote had not begun the deed. The remains would spoil the next step's line.
  if (steps_.empty() && content[0] != '{' && content[0] != '\0') {
    throw Error(Code::data_loss, doing + ": it is no journal",
                "look at the file; remove it only when you know that nothing is left to undo");
  }
  if (::ftruncate(fd_.get(), static_cast<off_t>(good)) != 0 || ::fsync(fd_.get()) != 0)
    throw system_error(doing, errno);
}

void Journal::record(std::string_view step, std::string_view data) {
  const std::string doing = "writing the step \"" + std::string(step) + "\" to the journal " + path_.string();
  if (!fd_) throw Error(Code::internal, doing + ": it was closed");
  const JsonDocument document = parse_json(data, doing);
  if (!document.IsObject()) throw Error(Code::internal, doing + ": its data is no JSON object");
  // Written from the parsed value: the caller's text may hold line breaks.
  Step entry{std::string(step), to_json(document)};
  JsonWriter out;
  out.begin_object().member("step", step).key("data").raw(entry.data).end_object();
  const std::string line = out.text() + "\n";
  parse_json(line, doing);  // what could not be read back must not be written

  const off_t before = ::lseek(fd_.get(), 0, SEEK_END);
  if (before < 0) throw system_error(doing, errno);
  std::size_t written = 0;
  int failure = 0;
  while (written < line.size() && failure == 0) {
    const ssize_t n = ::write(fd_.get(), line.data() + written, line.size() - written);
    if (n >= 0) {
      written += static_cast<std::size_t>(n);
    } else if (errno != EINTR) {
      failure = errno;
    }
  }
  if (failure == 0 && ::fdatasync(fd_.get()) != 0) failure = errno;
  if (failure != 0) {
    // A half line in the middle would make the whole journal unreadable.
    if (::ftruncate(fd_.get(), before) != 0) fd_.reset();
    throw system_error(doing, failure);
  }
  steps_.push_back(std::move(entry));
  failpoint("journal:" + std::string(step));
}

const Journal::Step* Journal::find(std::string_view step) const {
  for (auto it = steps_.rbegin(); it != steps_.rend(); ++it) {
    if (it->name == step) return &*it;
  }
  return nullptr;
}

void Journal::close() {
  fd_.reset();
  if (::unlink(path_.c_str()) != 0 && errno != ENOENT)
    throw system_error("removing the journal " + path_.string(), errno);
  fsync_dir(path_.parent_path());
}

#ifdef GUESTAGENT_FAILPOINTS
void failpoint(std::string_view name) {
  const char* setting = std::getenv("GUESTAGENT_FAILPOINT");
  if (setting == nullptr) return;
  const std::string_view text = setting;
  const std::size_t equals = text.find('=');
  const std::string_view place = text.substr(0, equals);
  const std::size_t at = place.find('@');
  if (place.substr(0, at) != name) return;
  static std::atomic<int> times = 0;
  if (at != std::string_view::npos && ++times != std::atoi(std::string(place.substr(at + 1)).c_str())) return;
  const std::string action(equals == std::string_view::npos ? "kill" : text.substr(equals + 1));
  if (action == "kill") {
    ::kill(::getpid(), SIGKILL);
  } else if (action == "error") {
    throw Error(Code::internal, "failing at the failpoint " + std::string(name));
  } else if (action.starts_with("sleep:")) {
    system_clock().sleep(Millis(std::atoi(action.c_str() + 6)), {});
  } else {
    throw Error(Code::invalid_argument, "GUESTAGENT_FAILPOINT: \"" + action + "\" is none of kill, error, sleep:MS");
  }
}
#endif

}  // namespace guestagent
