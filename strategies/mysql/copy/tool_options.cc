#include "strategies/mysql/copy/tool_options.h"

namespace guestagent::mysql {

std::string option_file_value(std::string_view value) {
  std::string out = "\"";
  for (const char c : value) {
    if (c == '\n' || c == '\r' || c == '\0') {
      throw Error(Code::invalid_argument, "writing an option file: a value with a line break or a zero byte");
    }
    if (c == '\\' || c == '"') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string tool_options(const MysqlSettings& settings, const ConnectTarget& target, const fs::path& socket,
                         const ServerIdentity& server, std::string_view group) {
  std::string out;
  std::error_code ignored;
  if (fs::exists(settings.defaults_file, ignored))
    out += "!include " + fs::absolute(settings.defaults_file).string() + "\n";
  // Last, so that it wins over groups of the same name in the server's files, and over [client] and [mysqld].
  out += "[" + std::string(group) + "]\n";
  // To the client's library this host is the socket's; protocol is known to some tools only.
  out += "host=localhost\n";
  if (server.port != 0) out += "port=" + std::to_string(server.port) + "\n";
  out += "loose-protocol=socket\n";
  // The gate has to read what the tool says; MariaDB's clients since 11.4 encrypt on sockets, too.
  out += group == "xtrabackup" ? "loose-ssl-mode=DISABLED\n" : "loose-ssl=0\nloose-ssl-verify-server-cert=0\n";
  out += "socket=" + option_file_value(socket.string()) + "\n";
  out += "user=" + option_file_value(target.user) + "\n";
  if (!target.password.empty()) out += "password=" + option_file_value(target.password.reveal()) + "\n";
  out += "datadir=" + option_file_value(server.data_dir.string()) + "\n";
  return out;
}

}  // namespace guestagent::mysql
