// A party that answers in the server's place: what it may ask of the client, and what it gets.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "base/file.h"
#include "strategies/mysql/server/sql_connection.h"
#include "tests/support/errors.h"

namespace guestagent::mysql {
namespace {

constexpr char kPassword[] = "pw-in-the-clear-0123456789";

// Says hello as a MySQL 5.7 would, asks for another way to log in, and keeps all that comes.
class HostileServer {
 public:
  HostileServer(int family, std::string way)
      : listener_(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)), way_(std::move(way)) {
    if (family == AF_UNIX) {
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      std::strcpy(address.sun_path, socket().c_str());
      bound_ = ::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    } else {
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      socklen_t size = sizeof address;
      bound_ = ::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size) == 0 &&
               ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0;
      port_ = ntohs(address.sin_port);
    }
    bound_ = bound_ && ::listen(listener_.get(), 5) == 0;
    thread_ = std::thread([this] { talk(); });
  }
  ~HostileServer() { end(); }

  fs::path socket() const { return dir_.path() / "s"; }
  std::uint16_t port() const { return port_; }
  // All that the client said, once it has gone.
  std::string heard() {
    end();
    return heard_;
  }

 private:
  void end() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    if (thread_.joinable()) thread_.join();
  }
  static std::string packet(unsigned char number, const std::string& body) {
    const auto size = static_cast<unsigned char>(body.size());
    return std::string{static_cast<char>(size), '\0', '\0', static_cast<char>(number)} + body;
  }
  void talk() {
    using namespace std::string_literals;
    const UniqueFd peer(::accept(listener_.get(), nullptr, nullptr));
    if (!peer) return;
    const std::string hello =
        "\x0a"
        "5.7.44\0"s +
        "\1\0\0\0"s + "abcdefgh\0"s + "\xff\xf7"s + "\x21"s + "\2\0"s + "\xff\x81"s + "\x15"s + std::string(10, '\0') +
        "ijklmnopqrst\0"s + "mysql_native_password\0"s;
    const std::string other = "\xfe"s + way_ + '\0' + "abcdefghijklmnopqrst\0"s;
    say(peer.get(), packet(0, hello));
    hear(peer.get());
    say(peer.get(), packet(2, other));
    while (hear(peer.get())) {
    }
  }
  static void say(int fd, const std::string& bytes) {
    static_cast<void>(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL));
  }
  bool hear(int fd) {
    char some[4096];
    const ssize_t n = ::recv(fd, some, sizeof some, 0);
    if (n > 0) heard_.append(some, static_cast<std::size_t>(n));
    return n > 0;
  }

  TempDir dir_{fs::temp_directory_path(), "hostile-"};
  UniqueFd listener_;
  std::string way_, heard_;
  bool bound_ = false;
  std::uint16_t port_ = 0;
  std::thread thread_;
};

TEST(HostileServer, NeverGetsThePasswordInTheClear) {
  for (const int family : {AF_UNIX, AF_INET}) {
    for (const char* way : {"mysql_clear_password", "dialog", "mysql_old_password", "../../evil", "none_of_these"}) {
      HostileServer server(family, way);
      ConnectTarget target;
      if (family == AF_UNIX) target.socket = server.socket();
      if (family == AF_INET) target.host = "127.0.0.1", target.port = server.port();
      target.user = "guestagent";
      target.password = Secret(kPassword);
      target.connect_timeout = target.read_timeout = Seconds(5);
      SqlConnection connection(target);
      EXPECT_THROW(connection.ensure(), Error) << way;
      connection.close();
      const std::string heard = server.heard();
      EXPECT_NE(heard.find("guestagent"), std::string::npos) << way << ": the login came as far as that";
      EXPECT_EQ(heard.find("pw-in-the-clear"), std::string::npos) << way;
    }
  }
}

TEST(HostileServer, AHostIsNoConnectionString) {
  for (const char* host : {"host=127.0.0.1;port=1;plugin-dir=/tmp;default-auth=evil;x=:", "a;b", "a=b", "x,127.0.0.1",
                           "127.0.0.1\nx", "[::1]"}) {
    ConnectTarget target;
    target.host = host;
    target.port = 1;
    target.user = "u";
    SqlConnection connection(target);
    EXPECT_EQ(test::code_of([&] { connection.ensure(); }), "INVALID_ARGUMENT") << host;
  }
}

}  // namespace
}  // namespace guestagent::mysql
