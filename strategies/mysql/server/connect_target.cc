// Where the server client connects, and as whom.
#include <sys/stat.h>

#include <array>

#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kMaxOptionFile = std::size_t{1} << 20;
// The groups that the server's own clients read, in the order in which a later one wins.
constexpr std::array kGroups = {"client", "client-server", "client-mariadb", "mariadb-client", "mysql"};

std::string_view trim_blank(std::string_view text) {
  const auto space = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  return text;
}

// As my_default.c: quotes are stripped, \b \t \n \r \\ \s are escapes, '#' outside of quotes starts a
// comment.
std::string option_value(std::string_view raw) {
  char quote = '\0';
  std::string_view kept = raw;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    const char c = raw[i];
    if ((c == '\'' || c == '"') && (i == 0 || raw[i - 1] != '\\')) {
      if (quote == '\0') {
        quote = c;
      } else if (quote == c) {
        quote = '\0';
      }
    } else if (c == '#' && quote == '\0') {
      kept = raw.substr(0, i);
      break;
    }
  }
  kept = trim_blank(kept);
  if (kept.size() >= 2 && (kept.front() == '\'' || kept.front() == '"') && kept.back() == kept.front()) {
    kept = kept.substr(1, kept.size() - 2);
  }
  std::string out;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (kept[i] != '\\' || i + 1 == kept.size()) {
      out += kept[i];
      continue;
    }
    const char c = kept[++i];
    switch (c) {
      case 'b':
        out += '\b';
        break;
      case 't':
        out += '\t';
        break;
      case 'n':
        out += '\n';
        break;
      case 'r':
        out += '\r';
        break;
      case 's':
        out += ' ';
        break;
      case '\\':
      case '"':
      case '\'':
        out += c;
        break;
      default:
        out += '\\';
        out += c;
    }
  }
  return out;
}

}  // namespace

std::string ConnectTarget::describe() const {
  return user + " on " + (host.empty() ? socket.string() : host + ":" + std::to_string(port));
}

ClientCredentials read_client_file(const fs::path& file) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) throw system_error("reading the client's option file: " + file.string(), errno);
  if ((info.st_mode & S_IROTH) != 0) {
    throw Error(Code::permission_denied,
                "reading the client's option file: " + file.string() + ": everybody can read it",
                "chmod o-r " + file.string());
  }
  const std::string text = read_trusted_file(file, kMaxOptionFile);
  std::array<ClientCredentials, kGroups.size()> found;
  ClientCredentials* group = nullptr;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    const std::string_view line = trim_blank(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (line.empty() || line.front() == '#' || line.front() == ';' || line.front() == '!') continue;
    if (line.front() == '[') {
      const std::string_view name =
          trim_blank(line.substr(1, line.find(']') == std::string_view::npos ? 0 : line.find(']') - 1));
      group = nullptr;
      for (std::size_t i = 0; i < kGroups.size(); ++i) {
        if (name == kGroups[i]) group = &found[i];
      }
      continue;
    }
    const std::size_t equals = line.find('=');
    if (group == nullptr || equals == std::string_view::npos) continue;
    const std::string_view key = trim_blank(line.substr(0, equals));
    const std::string_view raw = trim_blank(line.substr(equals + 1));
    if (key == "user") group->user = option_value(raw);
    if (key == "password") group->password = Secret(option_value(raw));
  }
  ClientCredentials out;
  for (const ClientCredentials& each : found) {
    if (!each.user.empty()) out.user = each.user;
    if (!each.password.empty()) out.password = each.password;
  }
  return out;
}

ConnectTarget local_target(const MysqlSettings& settings) {
  ConnectTarget out;
  out.socket = settings.socket;
  out.user = settings.user;
  out.tls = !settings.tls.ca_file.empty() || !settings.tls.certificate.empty() || settings.tls.verify;
  out.ca_file = settings.tls.ca_file;
  out.certificate = settings.tls.certificate;
  out.key = settings.tls.key;
  out.verify = settings.tls.verify;
  if (settings.password_file) out.password = secret_from_file(settings.password_file->string());
  if (settings.client_file) {
    const ClientCredentials credentials = read_client_file(*settings.client_file);
    if (!credentials.user.empty()) out.user = credentials.user;
    if (!credentials.password.empty()) out.password = credentials.password;
  }
  return out;
}

}  // namespace guestagent::mysql
