#include "strategies/mysql/copy/xbstream_files.h"

#include <algorithm>
#include <array>
#include <utility>

namespace guestagent::mysql {
namespace {

constexpr std::string_view kMagic = "XBSTCK01";
constexpr std::size_t kHead = 14;  // magic, flags, type, length of the path
constexpr std::size_t kMaxPath = 4096;
constexpr char kReplaces = 2;
constexpr std::size_t kMaxFile = std::size_t{16} << 20;  // a set of GTIDs may be long

template <typename T>
T little(std::string_view bytes) {
  T out = 0;
  for (std::size_t i = sizeof(T); i-- > 0;) out = static_cast<T>(out << 8 | static_cast<unsigned char>(bytes[i]));
  return out;
}

// "ibdata1.qp", "d/t.ibd.lz4.xbcrypt": no file of a server is called so.
std::string_view option_in_name(std::string_view path) {
  constexpr std::array<std::string_view, 8> kEndings = {".ibd", ".cnf", ".frm", ".opt",
                                                        ".MYD", ".MYI", ".sdi", "_logfile"};
  const auto stem_of = [](std::string_view name) { return name.substr(0, name.rfind('.')); };
  const auto ours = [&](std::string_view name) {
    return name.starts_with("ibdata") ||
           std::any_of(kEndings.begin(), kEndings.end(), [&](std::string_view each) { return name.ends_with(each); });
  };
  const auto compressed = [](std::string_view name) {
    return name.ends_with(".qp") || name.ends_with(".lz4") || name.ends_with(".zst");
  };
  const bool encrypted = path.ends_with(".xbcrypt");
  if (encrypted) path = stem_of(path);
  const bool also = compressed(path);
  if (also) path = stem_of(path);
  if ((!encrypted && !also) || !ours(path)) return "";
  return encrypted ? "encrypt" : "compress";
}

}  // namespace

std::optional<std::string> XbstreamFiles::file(std::string_view name) const {
  const auto it = files_.find(name);
  if (it == files_.end() || !it->second.whole || it->second.bad) return std::nullopt;
  return it->second.text;
}

// How many bytes the part needs before it can be read; data and holes are taken as they come.
std::size_t XbstreamFiles::wanted() const {
  switch (part_) {
    case Part::head:
      return kHead;
    case Part::path:
    case Part::second_path:
      return path_size_;
    case Part::seek:
      return 8;
    case Part::second_size:
      return 4;
    case Part::numbers:
      return type_ == 'S' ? 24 : 20;
    default:
      return 0;
  }
}

// A chunk of another form, or a flag with another meaning, could be read differently by the tool that has it next: then
// all is lost.
void XbstreamFiles::take_head(std::string_view bytes) {
  const bool mariadb = maker_ == Maker::mariadb;
  const char flags = bytes[8];
  type_ = bytes[9];
  path_size_ = little<std::uint32_t>(bytes.substr(10));
  const bool known = type_ == 'P' || type_ == 'S' || type_ == 'E' || (mariadb && (type_ == 'R' || type_ == 'D'));
  const bool replaces = mariadb && type_ == 'P' && flags == kReplaces;
  lost_ = !bytes.starts_with(kMagic) || path_size_ == 0 || path_size_ > kMaxPath || !known || (flags != 0 && !replaces);
  if (replaces) fresh_ = true;
  part_ = Part::path;
}

void XbstreamFiles::forget(std::string_view path) {
  if (const auto it = files_.find(path); it != files_.end()) it->second.bad = true;
}

void XbstreamFiles::take_path(std::string_view bytes) {
  path_ = bytes.starts_with("./") ? bytes.substr(2) : bytes;
  if (changed_by_.empty()) changed_by_ = option_in_name(path_);
  if (watcher_ != nullptr) watcher_->path(path_);
  into_ = std::find(names_.begin(), names_.end(), path_) == names_.end() ? nullptr : &files_[path_];
  part_ = Part::head;
  switch (type_) {
    case 'E':
      if (into_ != nullptr) into_->whole = true;
      if (watcher_ != nullptr) watcher_->end(path_);
      return;
    case 'D':
      forget(path_);
      if (watcher_ != nullptr) watcher_->removed(path_);
      return;
    case 'R':
      forget(path_);
      part_ = Part::second_size;
      return;
    default:
      part_ = type_ == 'S' && maker_ == Maker::mariadb ? Part::seek : Part::numbers;
  }
}

void XbstreamFiles::take_numbers(std::string_view bytes) {
  holes_ = 0;
  if (type_ == 'S') {
    holes_ = std::uint64_t{little<std::uint32_t>(bytes)} * 8;
    bytes.remove_prefix(4);
  }
  left_ = little<std::uint64_t>(bytes);
  offset_ = little<std::uint64_t>(bytes.substr(8));
  if (std::exchange(fresh_, false) && offset_ == 0 && into_ != nullptr) *into_ = {};
  if (into_ != nullptr && (type_ == 'S' || offset_ != into_->text.size() || left_ > kMaxFile - offset_)) {
    into_->bad = true;
    into_ = nullptr;
  }
  part_ = holes_ > 0 ? Part::holes : Part::data;
  end_of_data();
}

void XbstreamFiles::take(std::string_view bytes) {
  switch (part_) {
    case Part::head:
      return take_head(bytes);
    case Part::path:
      return take_path(bytes);
    case Part::seek:
      if (into_ != nullptr) into_->bad = true;
      part_ = Part::head;
      return;
    case Part::second_size:
      path_size_ = little<std::uint32_t>(bytes);
      lost_ = path_size_ == 0 || path_size_ > kMaxPath;
      part_ = Part::second_path;
      return;
    case Part::second_path: {
      const std::string_view to = bytes.starts_with("./") ? bytes.substr(2) : bytes;
      if (watcher_ != nullptr) {
        watcher_->path(to);
        watcher_->renamed(path_, to);
      }
      forget(to);
      part_ = Part::head;
      return;
    }
    case Part::numbers:
      return take_numbers(bytes);
    default:
      return;
  }
}

void XbstreamFiles::end_of_data() {
  if (part_ == Part::holes && holes_ == 0) part_ = Part::data;
  if (part_ == Part::data && left_ == 0) part_ = Part::head;
}

void XbstreamFiles::see(Bytes data) {
  std::string_view rest(reinterpret_cast<const char*>(data.data()), data.size());
  while (!rest.empty() && !lost_) {
    if (part_ == Part::data || part_ == Part::holes) {
      std::uint64_t& count = part_ == Part::data ? left_ : holes_;
      const std::string_view now = rest.substr(0, std::min<std::uint64_t>(count, rest.size()));
      if (part_ == Part::data && into_ != nullptr) into_->text += now;
      if (part_ == Part::data && watcher_ != nullptr) watcher_->data(path_, offset_, now);
      if (part_ == Part::data) offset_ += now.size();
      count -= now.size();
      rest.remove_prefix(now.size());
      end_of_data();
      continue;
    }
    const std::size_t missing = wanted() - held_.size();
    held_ += rest.substr(0, missing);
    rest.remove_prefix(std::min(missing, rest.size()));
    if (held_.size() < wanted()) return;
    const std::string whole = std::exchange(held_, {});
    take(whole);
  }
}

}  // namespace guestagent::mysql
