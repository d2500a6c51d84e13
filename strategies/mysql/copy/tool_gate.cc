#include "strategies/mysql/copy/tool_gate.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "strategies/mysql/server/session_words.h"

namespace guestagent::mysql {
namespace {

constexpr std::string_view kRecord = "sessions";
constexpr std::string_view kOwnDir = "guestagent-gate-";
constexpr std::size_t kLongestPath = 100;  // the kernel's limit is 107
constexpr int kGatePollMs = 100;

// The protocol: packets of a length (3 bytes, little-endian) and a number (1), which is 0 for a command.
constexpr std::size_t kPacketHeader = 4;
constexpr std::size_t kLongestCommand = 64 << 10;
constexpr std::size_t kLongestGreeting = 4096;
constexpr char kQuery = 3;
constexpr unsigned char kErrorPacket = 0xff;
constexpr int kLockWaitTimeout = 1205, kStageFailed = 4144;
constexpr std::uint32_t kCompress = 1U << 5, kSsl = 1U << 11, kZstd = 1U << 26, kQueryAttributes = 1U << 27;

std::uint32_t number_at(std::string_view bytes, std::size_t at, std::size_t size) {
  std::uint32_t out = 0;
  for (std::size_t i = 0; i < size; ++i) out |= std::uint32_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
  return out;
}

std::string query_packet(std::string_view sql, bool attributes) {
  std::string payload(1, kQuery);
  if (attributes) payload += std::string("\0\1", 2);
  payload += sql;
  std::string out;
  for (int i = 0; i < 3; ++i) out += static_cast<char>(payload.size() >> (8 * i) & 0xff);
  return out + '\0' + payload;
}

// The error's number in a packet of the server's; 0: it is none.
int error_of_packet(std::string_view packet) {
  if (packet.size() < kPacketHeader + 3 || static_cast<unsigned char>(packet[kPacketHeader]) != kErrorPacket) return 0;
  return static_cast<int>(number_at(packet, kPacketHeader + 1, 2));
}

// In capitals, without comments and needless blanks.
std::string plain_statement(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.substr(i).starts_with("/*")) {
      const std::size_t end = text.find("*/", i + 2);
      i = end == std::string_view::npos ? text.size() : end + 1;
      if (!out.empty() && out.back() != ' ') out += ' ';
    } else if (std::isspace(static_cast<unsigned char>(text[i])) != 0) {
      if (!out.empty() && out.back() != ' ') out += ' ';
    } else {
      out += static_cast<char>(std::toupper(static_cast<unsigned char>(text[i])));
    }
  }
  return out;
}

UniqueFd reach_server(const fs::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.string().size() >= sizeof address.sun_path) return UniqueFd();
  std::strcpy(address.sun_path, path.c_str());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return UniqueFd();
  return fd;
}

UniqueFd listen_on(const fs::path& path) {
  const std::string doing = "listening for the backup tool: " + path.string();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.string().size() >= sizeof address.sun_path)
    throw Error(Code::failed_precondition, doing + ": the path is too long for a socket");
  std::strcpy(address.sun_path, path.c_str());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) throw system_error(doing, errno);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::chmod(path.c_str(), 0600) != 0 || ::listen(fd.get(), 64) != 0) {
    throw system_error(doing, errno);
  }
  return fd;
}

}  // namespace

LockKind lock_kind(std::string_view statement) {
  const std::string plain = plain_statement(statement);
  const auto begins = [&](std::string_view words) { return plain.starts_with(words); };
  if (!begins("FLUSH ") && !begins("LOCK ") && !begins("BACKUP ")) return LockKind::none;
  if (begins("BACKUP STAGE END")) return LockKind::none;
  const bool all = plain.find(" WITH READ LOCK") != std::string::npos ||
                   plain.find(" BLOCK_COMMIT") != std::string::npos || begins("LOCK BINLOG");
  return all ? LockKind::freeze : LockKind::polite;
}

// One connection of the tool's, on a thread of its own.
class ToolGate::Session {
 public:
  Session(ToolGate& gate, UniqueFd tool, const std::stop_token& stop)
      : gate_(gate), stop_(stop), tool_(std::move(tool)), server_(reach_server(gate.server_)) {}

  ~Session() {
    const std::scoped_lock lock(gate_.mutex_);
    std::erase_if(gate_.unanswered_, [this](const auto& each) { return each.first == this; });
    if (gate_.frozen_ && gate_.frozen_->first == this) gate_.frozen_.reset();
  }

  void serve() {
    if (!server_ || !greet()) return;
    while (!stop_.stop_requested()) {
      std::array<pollfd, 2> ready = {pollfd{tool_.get(), POLLIN, 0}, pollfd{server_.get(), POLLIN, 0}};
      if (::poll(ready.data(), ready.size(), kGatePollMs) < 0 && errno != EINTR) return;
      if (ready[1].revents != 0) {
        std::string bytes;
        if (!receive(server_, bytes)) return;
        answered();
        if (!send(tool_, bytes)) return;
      }
      if (ready[0].revents != 0 && (!receive(tool_, from_tool_) || !pass_on())) return;
    }
  }

 private:
  static bool send(const UniqueFd& to, std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(to.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }

  // Appends what is there; false at the end.
  static bool receive(const UniqueFd& from, std::string& into) {
    std::array<char, 16384> block;
    const ssize_t n = ::recv(from.get(), block.data(), block.size(), 0);
    if (n < 0 && errno == EINTR) return true;
    if (n <= 0) return false;
    into.append(block.data(), static_cast<std::size_t>(n));
    return true;
  }

  // The next packet of the server's, whole; false when either side hangs up, or all is to end.
  bool next_packet(std::string& packet) {
    std::string& held = from_server_;
    for (;;) {
      if (held.size() >= kPacketHeader && held.size() >= kPacketHeader + number_at(held, 0, 3)) {
        packet = held.substr(0, kPacketHeader + number_at(held, 0, 3));
        held.erase(0, packet.size());
        return true;
      }
      std::array<pollfd, 2> ready = {pollfd{server_.get(), POLLIN, 0}, pollfd{tool_.get(), POLLRDHUP, 0}};
      if (::poll(ready.data(), ready.size(), kGatePollMs) < 0 && errno != EINTR) return false;
      if (stop_.stop_requested() || ready[1].revents != 0) return false;
      if (ready[0].revents != 0 && !receive(server_, held)) return false;
    }
  }

  // The session's number stands in the first packet; the tool gets that packet once the number is on record, and
  // without the offer of encryption or compression, which MariaDB's clients since 11.4 take on a socket, too: the gate
  // must read.
  bool greet() {
    std::string packet;
    if (!next_packet(packet)) return false;
    const std::size_t version_end = packet.find('\0', kPacketHeader + 1);
    if (packet.size() > kPacketHeader && packet[kPacketHeader] == 10 && version_end != std::string::npos &&
        version_end + 5 <= packet.size() && packet.size() <= kLongestGreeting) {
      gate_.opened(number_at(packet, version_end + 1, 4));
      // After the number: 8 bytes of the challenge, a zero, and the lower half of what the server can.
      const std::size_t offered = version_end + 1 + 4 + 8 + 1;
      if (offered + 2 <= packet.size()) {
        const std::uint32_t kept = number_at(packet, offered, 2) & ~(kSsl | kCompress);
        packet[offered] = static_cast<char>(kept & 0xff);
        packet[offered + 1] = static_cast<char>(kept >> 8);
      }
    }
    return send(tool_, packet + std::exchange(from_server_, {}));
  }

  // What the tool has sent, as far as it has come.
  bool pass_on() {
    std::string& held = from_tool_;
    while (!held.empty()) {
      if (closed_to_us_ || as_it_is_ > 0) {
        const std::size_t n = closed_to_us_ ? held.size() : std::min(held.size(), as_it_is_);
        if (!send(server_, std::string_view(held).substr(0, n))) return false;
        held.erase(0, n);
        as_it_is_ -= std::min(n, as_it_is_);
        continue;
      }
      if (held.size() < kPacketHeader) return true;
      const std::size_t length = number_at(held, 0, 3);
      const bool login = !logged_in_;
      if (held[3] == 0 || login) {
        if (length > kLongestCommand) {
          as_it_is_ = kPacketHeader + length;
          continue;
        }
        if (held.size() < kPacketHeader + length) return true;
      } else {
        as_it_is_ = kPacketHeader + length;
        continue;
      }
      const std::string packet = held.substr(0, kPacketHeader + length);
      held.erase(0, packet.size());
      if (login) {
        logged_in_ = true;
        const std::uint32_t flags = length >= 4 ? number_at(packet, kPacketHeader, 4) : 0;
        closed_to_us_ = (flags & (kSsl | kCompress | kZstd)) != 0;
        if (closed_to_us_) {
          log_warning(
              "the backup tool's session is encrypted or compressed: how long its locks wait cannot be limited");
        }
        attributes_ = (flags & kQueryAttributes) != 0;
        if (!send(server_, packet)) return false;
      } else if (!command(packet)) {
        return false;
      }
    }
    return true;
  }

  bool command(const std::string& packet) {
    const std::size_t text_at = kPacketHeader + 1 + (attributes_ ? 2 : 0);
    if (packet.size() < text_at || packet[kPacketHeader] != kQuery) return send(server_, packet);
    const std::string_view statement = std::string_view(packet).substr(text_at);
    if (!std::exchange(unlimited_, true) && !say(std::string(kNoLimits))) return false;
    asked(statement);
    const LockKind kind = lock_kind(statement);
    if (kind == LockKind::none) {
      const std::string plain = plain_statement(statement.substr(0, 80));
      if (plain.starts_with("UNLOCK TABLES") || plain.starts_with("UNLOCK BINLOG") ||
          plain.starts_with("BACKUP STAGE END"))
        freed();
      return send(server_, packet);
    }
    if (kind == LockKind::polite) return bounded_by(gate_.limits_.lock_wait) && send(server_, packet);
    // What the other ones are refused leaves the session as it was; UNLOCK TABLES would take from it what it has.
    return freeze(packet, plain_statement(statement).find(" WITH READ LOCK") != std::string::npos);
  }

  // A statement of our own; its answer is not the tool's.
  bool say(const std::string& sql) {
    std::string answer;
    if (!send(server_, query_packet(sql, attributes_)) || !next_packet(answer)) return false;
    if (const int error = error_of_packet(answer); error != 0)
      log_warning("the server refused a statement of the agent's",
                  {{"statement", sql}, {"error", std::to_string(error)}});
    return true;
  }

  bool bounded_by(Millis limit) {
    const auto seconds = std::max<Millis::rep>(1, (limit.count() + 999) / 1000);
    return say("SET SESSION lock_wait_timeout=" + std::to_string(seconds));
  }

  bool freeze(const std::string& packet, bool releases) {
    const SteadyTime deadline = gate_.clock_.steady() + gate_.limits_.lock_wait;
    for (;;) {
      if (!bounded_by(gate_.limits_.freeze) || !send(server_, packet)) return false;
      std::string answer;
      if (!next_packet(answer)) return false;
      const int error = error_of_packet(answer);
      const bool timed_out = error == kLockWaitTimeout || error == kStageFailed;
      // A server may have a part of the lock after it gave up on the rest.
      if (timed_out && releases && !say("UNLOCK TABLES")) return false;
      if (timed_out && gate_.clock_.steady() + gate_.limits_.freeze < deadline && pause()) continue;
      answered();
      if (error == 0) frozen();
      return send(tool_, answer + std::exchange(from_server_, {}));
    }
  }

  // The writers' turn. False when the tool is gone or all is to end.
  bool pause() {
    const SteadyTime until = gate_.clock_.steady() + gate_.limits_.freeze;
    while (gate_.clock_.steady() < until) {
      pollfd gone{tool_.get(), POLLRDHUP, 0};
      if (::poll(&gone, 1, kGatePollMs) < 0 && errno != EINTR) return false;
      if (stop_.stop_requested() || gone.revents != 0) return false;
    }
    return true;
  }

  void asked(std::string_view statement) {
    const std::scoped_lock lock(gate_.mutex_);
    std::erase_if(gate_.unanswered_, [this](const auto& each) { return each.first == this; });
    gate_.unanswered_.emplace_back(this, Unanswered{std::string(statement.substr(0, 60)), gate_.clock_.steady()});
  }
  void answered() {
    const std::scoped_lock lock(gate_.mutex_);
    std::erase_if(gate_.unanswered_, [this](const auto& each) { return each.first == this; });
  }
  void frozen() {
    const std::scoped_lock lock(gate_.mutex_);
    if (!gate_.frozen_) gate_.frozen_ = {this, gate_.clock_.steady()};
  }
  void freed() {
    const std::scoped_lock lock(gate_.mutex_);
    if (gate_.frozen_ && gate_.frozen_->first == this) gate_.frozen_.reset();
  }

  ToolGate& gate_;
  const std::stop_token stop_;
  UniqueFd tool_, server_;
  std::string from_tool_, from_server_;
  std::size_t as_it_is_ = 0;  // bytes that are passed on unread
  bool logged_in_ = false, closed_to_us_ = false, attributes_ = false, unlimited_ = false;
};

ToolGate::ToolGate(const fs::path& dir, fs::path server, GateLimits limits, Clock& clock)
    : record_(dir / kRecord), server_(std::move(server)), limits_(limits), clock_(clock), socket_(dir / "server.sock") {
  if (socket_.string().size() > kLongestPath) {
    own_dir_.emplace(fs::temp_directory_path(), kOwnDir);
    socket_ = own_dir_->path() / "server.sock";
  }
  write_file_atomic(record_, own_dir_ ? "dir " + own_dir_->path().string() + "\n" : "", 0600);
  listener_ = listen_on(socket_);
  acceptor_ = std::jthread([this](const std::stop_token& stop) { accept_sessions(stop); });
}

ToolGate::~ToolGate() {
  acceptor_.request_stop();
  if (acceptor_.joinable()) acceptor_.join();
  for (std::jthread& each : served_) each.request_stop();
  served_.clear();
}

void ToolGate::accept_sessions(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    pollfd ready{listener_.get(), POLLIN, 0};
    if (::poll(&ready, 1, kGatePollMs) <= 0) continue;
    UniqueFd tool(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!tool) continue;
    served_.emplace_back(
        [this, fd = tool.release()](const std::stop_token& end) { Session(*this, UniqueFd(fd), end).serve(); });
  }
}

void ToolGate::opened(std::uint64_t id) {
  const std::scoped_lock lock(mutex_);
  sessions_.push_back(id);
  const std::string line = std::to_string(id) + "\n";
  const UniqueFd file(::open(record_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  // A host that loses power has lost the server as well: it need not be on the disk.
  if (!file || ::write(file.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    log_warning("cannot note a session of the backup tool",
                {{"file", record_.string()}, {"session", std::to_string(id)}});
  }
}

std::vector<std::uint64_t> ToolGate::sessions() const {
  const std::scoped_lock lock(mutex_);
  return sessions_;
}

std::optional<ToolGate::Unanswered> ToolGate::unanswered() const {
  const std::scoped_lock lock(mutex_);
  const auto oldest = std::min_element(unanswered_.begin(), unanswered_.end(),
                                       [](const auto& a, const auto& b) { return a.second.since < b.second.since; });
  return oldest == unanswered_.end() ? std::nullopt : std::optional(oldest->second);
}

std::optional<SteadyTime> ToolGate::frozen_since() const {
  const std::scoped_lock lock(mutex_);
  return frozen_ ? std::optional(frozen_->second) : std::nullopt;
}

std::optional<GateRecord> read_gate_record(const fs::path& dir) {
  const fs::path file = dir / kRecord;
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) return std::nullopt;
  GateRecord out;
  out.written = std::chrono::system_clock::from_time_t(info.st_mtime);
  const std::string text = read_file(file, 1 << 20);
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.starts_with("dir ")) {
      const fs::path own(line.substr(4));
      // Only what stands where a gate makes such a directory.
      if (own.parent_path() == fs::temp_directory_path() && own.filename().string().starts_with(kOwnDir))
        out.own_dir = own;
      continue;
    }
    std::uint64_t id = 0;
    const auto [end, failed] = std::from_chars(line.data(), line.data() + line.size(), id);
    if (failed == std::errc() && end == line.data() + line.size()) out.sessions.push_back(id);
  }
  return out;
}

}  // namespace guestagent::mysql
