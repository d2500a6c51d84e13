#include "strategies/mysql/install/switch_data.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <sstream>

#include "base/error.h"
#include "base/held_dir.h"
#include "base/log.h"
#include "base/secret.h"
#include "base/text.h"
#include "strategies/mysql/host/tree_move.h"
#include "strategies/mysql/host/work_places.h"
#include "strategies/mysql/server/journal_steps.h"

namespace guestagent::mysql {
namespace {

constexpr std::string_view kSystemTablespace = "ibdata";

bool inside(const fs::path& path, const fs::path& dir) {
  const fs::path relative = path.lexically_relative(dir);
  return !relative.empty() && relative != "." && *relative.begin() != "..";
}

// Not data: what the backup tool wrote beside it.
bool is_tool_file(const fs::directory_entry& entry) {
  const std::string name = entry.path().filename().string();
  return entry.is_regular_file() &&
         (name.starts_with("xtrabackup_") || name.starts_with("mariadb_backup_") || name == "backup-my.cnf");
}

bool is_leftover(const std::string& name) {
  return name.starts_with(kPartialPrefix) || name.starts_with(kTrashPrefix) || name.starts_with(kWastePrefix);
}

bool has_step(const Journal& journal, std::string_view name) {
  return journal.find(name) != nullptr;
}

}  // namespace

std::vector<std::string> tablespace_names(const std::string& data_file_path) {
  std::vector<std::string> out;
  std::istringstream in(data_file_path);
  for (std::string part; std::getline(in, part, ';');) {
    const std::string name = part.substr(0, part.find(':'));
    if (name.find('/') != std::string::npos) {
      throw Error(Code::failed_precondition, "exchanging the data: innodb_data_file_path: " + part + ": a path",
                  "name a file in innodb_data_home_dir instead");
    }
    if (!name.empty()) out.push_back(name);
  }
  return out;
}

bool DataSwitch::Area::has(const std::string& name) const {
  if (is_leftover(name)) return false;
  if (prefixes.empty()) return std::find(keep.begin(), keep.end(), name) == keep.end();
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const std::string& prefix) {
    return prefix.starts_with('=') ? name == prefix.substr(1) : name.starts_with(prefix);
  });
}

// A directory inside of the data directory moves with it and is only made again for the new data, unless it is a mount
// point: then it stays and its files are exchanged, as those of a directory elsewhere.
void DataSwitch::add_area(const fs::path& dir, std::vector<std::string> prefixes, const fs::path& data_dir) {
  if (dir.empty()) return;
  const fs::path live = fs::weakly_canonical(dir);
  if (live == data_dir || prefixes.empty()) return;
  if (!fs::exists(live)) return;
  Area& whole = areas_.front();
  if (inside(live, data_dir)) {
    if (!is_mount_point(live)) {
      add_inner(live);
    } else {
      whole.keep.push_back(live.lexically_relative(data_dir).begin()->string());
    }
  }
  const auto known = std::find_if(areas_.begin() + 1, areas_.end(), [&](const Area& a) { return a.live == live; });
  if (known != areas_.end()) {
    known->prefixes.insert(known->prefixes.end(), prefixes.begin(), prefixes.end());
    return;
  }
  const fs::path previous = same_file_system(live, root_.parent_path())
                                ? root_ / ("outside-" + std::to_string(areas_.size()))
                                : live / (".guestagent-" + root_.filename().string());
  areas_.push_back({live, previous, {}, std::move(prefixes), {}});
}

// A file in the data directory is exchanged with it.
void DataSwitch::add_file(const fs::path& file, const fs::path& data_dir) {
  if (file.empty()) return;
  const std::string name = file.filename().string();
  const fs::path dir = fs::weakly_canonical(file.parent_path());
  if (dir != data_dir && !inside(dir, data_dir)) add_area(dir, {"=" + name, "=" + name + "_crash_safe"}, data_dir);
}

// Those around it first.
void DataSwitch::add_inner(const fs::path& dir) {
  Area& whole = areas_.front();
  if (!inside(dir, whole.live) || !fs::is_directory(dir)) return;
  add_inner(dir.parent_path());
  if (std::any_of(whole.inner.begin(), whole.inner.end(), [&](const Area::Inner& inner) { return inner.path == dir; }))
    return;
  struct stat info {};
  if (::stat(dir.c_str(), &info) != 0) throw system_error("looking at " + dir.string(), errno);
  whole.inner.push_back({dir, info.st_mode & 07777, info.st_uid, info.st_gid});
}

DataSwitch::DataSwitch(const DataLayout& layout, const fs::path& staging, Journal& journal)
    : journal_(&journal), staging_(staging) {
  const fs::path data_dir = fs::canonical(layout.data_dir);
  const fs::path work = work_dir(data_dir);
  make_work_dir(work);
  root_ = new_work_path(work, "previous");
  areas_.push_back({data_dir, root_ / "data", {"lost+found"}, {}, {}});
  if (inside(work, data_dir)) areas_.front().keep.emplace_back(kHiddenDir);
  if (inside(staging_, data_dir))
    areas_.front().keep.push_back(staging_.lexically_relative(data_dir).begin()->string());

  std::vector<std::string> tablespaces = layout.system_tablespaces;
  tablespaces.insert(tablespaces.end(), {std::string(kSystemTablespace), "ibtmp"});
  add_area(layout.innodb_home, std::move(tablespaces), data_dir);
  add_area(layout.redo_dir, {"ib_logfile", "#innodb_redo", "#ib_redo"}, data_dir);
  add_area(layout.undo_dir, {"undo0", "undo_0", "undo1", "undo_1"}, data_dir);
  add_area(layout.aria_dir, {"aria_log"}, data_dir);
  add_area(layout.doublewrite_dir, {"#ib_"}, data_dir);
  const std::string binlog = layout.log_bin.filename().string(), relay = layout.relay_log.filename().string();
  if (!binlog.empty()) add_area(layout.log_bin.parent_path(), {binlog + ".", binlog + "~"}, data_dir);
  if (!relay.empty()) add_area(layout.relay_log.parent_path(), {relay + ".", relay + "-"}, data_dir);
  for (const fs::path& file : layout.files) add_file(file, data_dir);
  for (const std::string& name : layout.host.kept) {
    if (!fs::exists(staging_ / name) && areas_.front().has(name)) carried_.push_back(name);
  }
  for (const fs::path& dir : layout.host.needed) {
    const fs::path real = fs::weakly_canonical(dir);
    if (!inside(real, data_dir)) continue;
    const std::string top = real.lexically_relative(data_dir).begin()->string();
    if (!fs::exists(staging_ / top) && std::find(carried_.begin(), carried_.end(), top) == carried_.end())
      add_inner(real);
  }

  // All of it is looked at before anything moves: what cannot be moved, or not be written down, is refused while the
  // server's data is whole in its place.
  for (const Area& area : areas_) {
    for (const fs::path& name : entries(area, area.live)) {
      if (!valid_utf8(name.string())) {
        throw Error(Code::failed_precondition,
                    "exchanging the data: " + (area.live / name).string() + ": its name is no UTF-8",
                    "no database server makes such a name: move that entry away");
      }
      if (is_mount_point(area.live / name)) {
        throw Error(Code::failed_precondition,
                    "exchanging the data: " + (area.live / name).string() + ": another file system is mounted there",
                    "unmount it: only the data directory itself, or a directory for logs, may be a mount point");
      }
    }
  }
  journal_->record(step::kSwitchPlan, text());
}

std::string DataSwitch::text() const {
  JsonWriter out;
  const auto strings = [&](std::string_view key, const std::vector<std::string>& list) {
    out.key(key).begin_array();
    for (const std::string& each : list) out.value(each);
    out.end_array();
  };
  out.begin_object().member("staging", staging_.string()).member("root", root_.string()).key("areas").begin_array();
  for (const Area& area : areas_) {
    out.begin_object().member("live", area.live.string()).member("previous", area.previous.string());
    strings("keep", area.keep);
    strings("prefixes", area.prefixes);
    out.key("inner").begin_array();
    for (const Area::Inner& inner : area.inner) {
      out.begin_object()
          .member("path", inner.path.string())
          .member("mode", inner.mode)
          .member("uid", inner.uid)
          .member("gid", inner.gid)
          .end_object();
    }
    out.end_array().end_object();
  }
  out.end_array().end_object();
  return out.text();
}

std::optional<DataSwitch> DataSwitch::recorded(Journal& journal) {
  const Journal::Step* plan = journal.find(step::kSwitchPlan);
  if (plan == nullptr) return std::nullopt;
  const JsonDocument document = parse_json(plan->data, "the journal's switch.plan");
  const JsonReader in(document, "switch.plan", Code::data_loss);
  DataSwitch out(journal);
  out.staging_ = in.string("staging");
  out.root_ = in.string("root");
  const JsonValue* areas = in.array("areas");
  if (areas == nullptr || areas->Empty()) throw in.error("areas", "missing");
  for (const JsonValue& each : areas->GetArray()) {
    const JsonReader item(each, "switch.plan.areas", Code::data_loss);
    Area area{item.string("live"), item.string("previous"), item.strings("keep"), item.strings("prefixes"), {}};
    if (const JsonValue* inner = item.array("inner")) {
      for (const JsonValue& dir : inner->GetArray()) {
        const JsonReader d(dir, "switch.plan.areas.inner", Code::data_loss);
        area.inner.push_back({d.string("path"), static_cast<unsigned>(d.uint("mode")),
                              static_cast<unsigned>(d.uint("uid")), static_cast<unsigned>(d.uint("gid"))});
      }
    }
    out.areas_.push_back(std::move(area));
  }
  return out;
}

fs::path DataSwitch::previous() const {
  return root_;
}

// Names in `dir` that belong to `area`; the system tablespace last.
std::vector<fs::path> DataSwitch::entries(const Area& area, const fs::path& dir) const {
  std::vector<fs::path> names;
  if (!fs::exists(dir)) return names;
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (area.has(entry.path().filename().string())) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end(), [](const fs::path& a, const fs::path& b) {
    const bool a_last = a.string().starts_with(kSystemTablespace), b_last = b.string().starts_with(kSystemTablespace);
    return a_last != b_last ? b_last : a < b;
  });
  return names;
}

const DataSwitch::Area& DataSwitch::area_for(const std::string& name) const {
  const auto found = std::find_if(areas_.begin() + 1, areas_.end(), [&](const Area& area) { return area.has(name); });
  return found == areas_.end() ? areas_.front() : *found;
}

// Two halves with a step between them. Before "in" everything in the live places is old: an undo only moves back. After
// it what stands there may be new and is removed first. Without the step an undo could not tell the one from the other.
void DataSwitch::exchange() {
  move_out();
  journal_->record(step::kSwitchIn);
  move_in();
  journal_->record(step::kSwitchDone);
}

void DataSwitch::move_out() {
  for (const Area& area : areas_) make_dir(area.previous, 0700);
  make_dir(root_, 0700);
  for (const Area& area : areas_) {
    std::vector<fs::path> names = entries(area, area.live);
    // The system tablespace first, so that no server starts on what is left.
    std::reverse(names.begin(), names.end());
    for (const fs::path& name : names) {
      move_entry(area.live, area.previous, name);
      failpoint("switch:out");
    }
    // Where they came before where they went: a power cut may show an entry in both places, never in none.
    fsync_dir(area.previous);
    if (!fs::exists(area.live)) continue;  // it was inside of the data directory and moved with it
    remove_move_leftovers(area.live);
    fsync_dir(area.live);
  }
}

void DataSwitch::carry_over() {
  for (const std::string& name : carried_) copy_tree(areas_.front().previous / name, areas_.front().live / name);
}

void DataSwitch::move_in() {
  for (const Area::Inner& inner : areas_.front().inner) {
    make_dir(inner.path, inner.mode);
    give_dir(inner.path, inner.uid, inner.gid);
  }
  // Copies, not moves: an undo finds the old data complete.
  carry_over();
  std::vector<fs::path> names, last;
  for (const auto& entry : fs::directory_iterator(staging_)) {
    const std::string name = entry.path().filename().string();
    if (is_tool_file(entry) || is_leftover(name) || name == "lost+found") continue;
    (name.starts_with(kSystemTablespace) ? last : names).push_back(name);
  }
  std::sort(names.begin(), names.end());
  for (const std::vector<fs::path>* list : {&names, &last}) {
    for (const fs::path& name : *list) {
      move_entry(staging_, area_for(name.string()).live, name);
      failpoint("switch:in");
    }
    // After the first list, too: the system tablespace may not be there after a power cut that lost another entry.
    for (const Area& area : areas_) fsync_dir(area.live);
  }
  remove_move_leftovers(staging_);
}

// "back" says that no new data is left: from there on what stands in a live place is old data that has come back, and
// clear() must not run again.
void DataSwitch::put_back() {
  if (has_step(*journal_, step::kSwitchUndone)) return;
  if (!has_step(*journal_, step::kSwitchBack)) {
    if (has_step(*journal_, step::kSwitchIn)) clear();
    journal_->record(step::kSwitchBack);
  }
  move_back();
  journal_->record(step::kSwitchUndone);
}

// All places are looked at before the first byte is removed: without the old data the new one is the only data there
// is.
void DataSwitch::clear() {
  for (const Area& area : areas_) {
    if (!fs::is_directory(area.previous)) {
      throw Error(Code::data_loss, "putting the old data back: " + area.previous.string() + ": it is gone",
                  "nothing was removed from " + area.live.string() + "; find out who removed the old data");
    }
  }
  for (const Area& area : areas_) {
    std::vector<fs::path> names = entries(area, area.live);
    std::reverse(names.begin(), names.end());
    for (const fs::path& name : names) {
      remove_tree(area.live / name);
      failpoint("switch:clear");
    }
    if (!fs::exists(area.live)) continue;
    remove_move_leftovers(area.live);
    fsync_dir(area.live);
  }
}

void DataSwitch::move_back() {
  // The data directory first: directories inside of it that other areas need come back with it.
  for (const Area& area : areas_) {
    // Before anything comes back: what an interrupted move left here says of names that they are waste.
    remove_move_leftovers(area.live);
    for (const fs::path& name : entries(area, area.previous)) {
      move_entry(area.previous, area.live, name);
      failpoint("switch:back");
    }
    remove_move_leftovers(area.previous);
    fsync_dir(area.live);
    remove_dir_if_empty(area.previous);
  }
  remove_dir_if_empty(root_);
  remove_dir_if_empty(root_.parent_path());
}

void DataSwitch::discard_previous() {
  for (const Area& area : areas_) remove_tree(area.previous);
  remove_tree(root_);
  remove_dir_if_empty(root_.parent_path());
}

}  // namespace guestagent::mysql
