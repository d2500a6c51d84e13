#include <algorithm>
#include <array>
#include <cctype>
#include <set>
#include <sstream>

#include "base/error.h"
#include "strategies/mysql/host/option_file.h"

namespace guestagent::mysql {
namespace {

constexpr unsigned kMaxDepth = 10;  // the servers' own limit of nested includes
constexpr std::size_t kMaxBytes = 4 << 20;

std::string_view trim_space(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) text.remove_suffix(1);
  return text;
}

std::string normal_name(std::string_view name) {
  std::string out(trim_space(name));
  std::replace(out.begin(), out.end(), '-', '_');
  if (out.starts_with("loose_")) out.erase(0, 6);
  return out;
}

// As the servers read it: a '#' begins a comment outside of quotes, one pair of quotes is taken off.
std::string clean_value(std::string_view text) {
  char quote = 0;
  std::size_t end = text.size();
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool escaped = i > 0 && text[i - 1] == '\\';
    if ((c == '\'' || c == '"') && !escaped) {
      if (quote == 0) {
        quote = c;
      } else if (quote == c) {
        quote = 0;
      }
    }
    if (c == '#' && quote == 0) {
      end = i;
      break;
    }
  }
  std::string_view value = trim_space(text.substr(0, end));
  if (value.size() >= 2 && (value.front() == '"' || value.front() == '\'') && value.front() == value.back()) {
    value = value.substr(1, value.size() - 2);
  }
  return std::string(value);
}

// Calls `on_file` for each file as it begins and `on_line` for each of its lines that is no include.
class Walker {
 public:
  explicit Walker(fs::path expected = {}) : expected_(std::move(expected)) {}
  virtual ~Walker() = default;

  void walk(const fs::path& file, unsigned depth = 0) {
    if (depth > kMaxDepth) {
      throw Error(Code::invalid_argument, "reading option files: " + file.string() + ": includes more than 10 deep",
                  "look for a file that includes itself");
    }
    std::error_code ec;
    const bool there = fs::exists(file, ec) || file != expected_;
    std::istringstream in(there ? read_file(file, kMaxBytes) : std::string());
    on_file(file);
    unsigned number = 0;
    for (std::string raw; std::getline(in, raw);) {
      ++number;
      const std::string_view line = trim_space(raw);
      if (line.starts_with("!includedir")) {
        include_dir(std::string(trim_space(line.substr(11))), depth);
      } else if (line.starts_with("!include")) {
        walk(std::string(trim_space(line.substr(8))), depth + 1);
      } else {
        on_line(file, number, raw, line);
        continue;
      }
      after_include(file);
    }
  }

 protected:
  virtual void on_file(const fs::path& file) = 0;
  virtual void on_line(const fs::path& file, unsigned number, const std::string& raw, std::string_view line) = 0;
  virtual void after_include(const fs::path& includer) = 0;

 private:
  void include_dir(const fs::path& dir, unsigned depth) {
    std::error_code ec;
    std::set<fs::path> found;
    for (const auto& entry : fs::directory_iterator(dir, ec)) {
      if (entry.path().extension() == ".cnf") found.insert(entry.path());
    }
    if (ec && ec != std::errc::no_such_file_or_directory) throw system_error("reading " + dir.string(), ec.value());
    if (expected_.extension() == ".cnf" && fs::equivalent(dir, expected_.parent_path(), ec)) {
      expected_ = dir / expected_.filename();
      found.insert(expected_);
    }
    for (const fs::path& file : found) walk(file, depth + 1);
  }

  fs::path expected_;
};

class LineReader : public Walker {
 public:
  using Walker::Walker;
  OptionFiles result;

 protected:
  void on_file(const fs::path& file) override {
    result.files.push_back({file, result.lines.size()});
    groups_.push_back({file, ""});
  }

  void on_line(const fs::path& file, unsigned number, const std::string&, std::string_view line) override {
    if (line.empty() || line.front() == '#' || line.front() == ';') return;
    std::string& group = groups_.back().second;
    if (line.front() == '[') {
      group = std::string(trim_space(line.substr(1, line.find(']') - 1)));
      return;
    }
    const std::size_t equals = line.find('=');
    OptionLine out{file, number, group, "", ""};
    if (equals == std::string_view::npos) {
      out.name = normal_name(clean_value(line));
    } else {
      out.name = normal_name(line.substr(0, equals));
      out.value = clean_value(line.substr(equals + 1));
    }
    result.lines.push_back(std::move(out));
  }

  void after_include(const fs::path& includer) override {
    while (groups_.back().first != includer) groups_.pop_back();
  }

 private:
  std::vector<std::pair<fs::path, std::string>> groups_;  // of each file that is open
};

// Text that says the same without includes. The group of a file goes on after its include.
class Flattener : public Walker {
 public:
  explicit Flattener(const fs::path& except) : except_(except) {}
  std::string text;

 protected:
  void on_file(const fs::path& file) override {
    skipping_ = same(file, except_);
    text += "# " + file.string() + "\n";
    groups_.push_back({file, ""});
  }
  void on_line(const fs::path&, unsigned, const std::string& raw, std::string_view line) override {
    if (skipping_) return;
    if (line.starts_with('[')) groups_.back().second = std::string(line);
    text += raw + "\n";
  }
  void after_include(const fs::path& includer) override {
    while (groups_.back().first != includer) groups_.pop_back();
    skipping_ = same(includer, except_);
    text += groups_.back().second + "\n";
  }

 private:
  static bool same(const fs::path& a, const fs::path& b) {
    std::error_code ec;
    return fs::weakly_canonical(a, ec) == fs::weakly_canonical(b, ec);
  }
  const fs::path except_;
  bool skipping_ = false;
  std::vector<std::pair<fs::path, std::string>> groups_;
};

}  // namespace

OptionFiles read_option_files(const fs::path& defaults_file, const fs::path& expected) {
  LineReader reader(expected);
  with_context("reading the server's option files", [&] { reader.walk(defaults_file); });
  return std::move(reader.result);
}

std::string flatten_option_files(const fs::path& defaults_file, const fs::path& except) {
  Flattener flattener(except);
  with_context("reading the server's option files", [&] { flattener.walk(defaults_file); });
  return std::move(flattener.text);
}

bool is_server_group(std::string_view group) {
  constexpr std::array<std::string_view, 6> whole = {"mysqld", "mariadb",       "mariadbd",
                                                     "server", "client-server", "galera"};
  constexpr std::array<std::string_view, 3> versioned = {"mysqld-", "mariadb-", "mariadbd-"};
  return std::find(whole.begin(), whole.end(), group) != whole.end() ||
         std::any_of(versioned.begin(), versioned.end(), [&](std::string_view prefix) {
           return group.starts_with(prefix) && group.size() > prefix.size() &&
                  std::isdigit(static_cast<unsigned char>(group[prefix.size()])) != 0;
         });
}

}  // namespace guestagent::mysql
