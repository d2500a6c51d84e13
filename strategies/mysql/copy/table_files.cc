#include "strategies/mysql/copy/table_files.h"

#include <algorithm>
#include <array>

namespace guestagent::mysql {
namespace {

// Engines with files of their own, by the number that a definition has at offset 3 (of a partitioned table's parts: at
// offset 61).
struct TableEngine {
  int number;
  std::string_view name;
  std::array<std::string_view, 2> endings;
};
constexpr std::array<TableEngine, 5> kTableEngines = {{
    {9, "MyISAM", {"MYI", "MYD"}},
    {10, "MERGE", {"MRG", ""}},
    {16, "ARCHIVE", {"ARZ", ""}},
    {17, "CSV", {"CSV", ""}},
    {42, "Aria", {"MAI", "MAD"}},
}};
constexpr int kPartitioned = 20;
constexpr std::size_t kEngineAt = 3, kPartEngineAt = 61, kPartsAt = 8;
constexpr std::size_t kMostNamed = 100;

const TableEngine* engine_of(int number) {
  const auto* const found = std::find_if(kTableEngines.begin(), kTableEngines.end(),
                                         [&](const TableEngine& e) { return e.number == number; });
  return found == kTableEngines.end() ? nullptr : found;
}

bool is_ending(std::string_view ending) {
  return !ending.empty() && std::any_of(kTableEngines.begin(), kTableEngines.end(), [&](const TableEngine& e) {
    return std::find(e.endings.begin(), e.endings.end(), ending) != e.endings.end();
  });
}

// "d/t#P#p0.MYI" is of the table "d/t". Only what is in a database's directory, and no temporary table of a change that
// died.
struct Parts {
  std::string_view stem, ending;
  bool of_partition = false;
};
Parts split(std::string_view path) {
  const std::size_t slash = path.find('/');
  const std::size_t dot = path.rfind('.');
  if (slash == std::string_view::npos || dot == std::string_view::npos || dot < slash ||
      path.find('/', slash + 1) != std::string_view::npos)
    return {};
  if (path.substr(slash + 1).starts_with("#sql")) return {};
  Parts out{path.substr(0, dot), path.substr(dot + 1), false};
  for (const std::string_view mark : {"#P#", "#p#"}) {
    const std::size_t at = out.stem.find(mark, slash);
    if (at == std::string_view::npos) continue;
    out.stem = out.stem.substr(0, at);
    out.of_partition = true;
  }
  return out;
}

// "d/t_366" as "d/t".
std::string_view without_number(std::string_view stem) {
  const std::size_t at = stem.find_last_not_of("0123456789");
  return at == std::string_view::npos || at + 1 == stem.size() || stem[at] != '_' ? std::string_view()
                                                                                  : stem.substr(0, at);
}

int byte_at(std::string_view text, std::size_t at) {
  return at < text.size() ? static_cast<unsigned char>(text[at]) : -1;
}

// "d/t" as "d.t".
std::string table_name(std::string_view stem) {
  std::string out(stem);
  std::replace(out.begin(), out.end(), '/', '.');
  return out;
}

}  // namespace

bool TableFiles::wants_data(std::string_view path) {
  const Parts parts = split(path);
  return parts.ending == "frm" || parts.ending == "par";
}

void TableFiles::data(std::string_view path, std::uint64_t offset, std::string_view bytes) {
  if (offset >= kHead || !wants_data(path)) return;
  std::string& head = heads_[std::string(path)];
  if (offset == 0) head.clear();      // it may come again, and replace what was there
  if (head.size() != offset) return;  // a part of it is missing: then nothing is known of it
  head += bytes.substr(0, kHead - head.size());
}

void TableFiles::define(const std::string& stem, std::string_view head) {
  if (const auto known = tables_.find(stem); known != tables_.end()) known->second.engine = -1;
  // A view's is a text.
  if (byte_at(head, 0) != 0xfe || byte_at(head, 1) != 0x01) return;
  int engine = byte_at(head, kEngineAt);
  const bool partitioned = engine == kPartitioned;
  if (partitioned) engine = byte_at(head, kPartEngineAt);
  if (engine_of(engine) == nullptr) return;
  Table& table = tables_[stem];
  table.engine = engine;
  table.partitioned = partitioned;
}

void TableFiles::describe(std::string_view path, std::string_view text) {
  const std::string_view stem = without_number(split(path).stem);
  if (stem.empty()) return;
  for (const TableEngine& engine : kTableEngines) {
    const std::string name = engine.name == "MERGE" ? "MRG_MYISAM" : std::string(engine.name);
    if (text.find("\"engine\":\"" + name + "\"") != std::string_view::npos)
      tables_[std::string(stem)].engine = engine.number;
  }
}

void TableFiles::end(std::string_view path) {
  const Parts parts = split(path);
  if (parts.stem.empty()) return;
  const std::string stem(parts.stem);
  if (is_ending(parts.ending)) {
    tables_[stem].files.emplace(path);
    return;
  }
  const auto head = heads_.find(path);
  if (head == heads_.end()) return;
  if (parts.ending == "frm") define(stem, head->second);
  if (parts.ending == "par" && head->second.size() >= kPartsAt + 4) {
    std::uint32_t count = 0;
    for (std::size_t i = 4; i-- > 0;)
      count = count << 8 | static_cast<std::uint32_t>(byte_at(head->second, kPartsAt + i));
    tables_[stem].parts = count;
  }
  heads_.erase(head);
}

void TableFiles::removed(std::string_view path) {
  if (const auto head = heads_.find(path); head != heads_.end()) heads_.erase(head);
  const Parts parts = split(path);
  const auto table = tables_.find(parts.stem);
  if (table == tables_.end()) return;
  if (const auto file = table->second.files.find(path); file != table->second.files.end())
    table->second.files.erase(file);
  if (parts.ending == "frm") table->second.engine = -1;
  if (parts.ending == "par") table->second.parts = 0;
  if (table->second.engine < 0 && table->second.parts == 0 && table->second.files.empty()) tables_.erase(table);
}

void TableFiles::renamed(std::string_view from, std::string_view to) {
  removed(to);
  const Parts before = split(from), after = split(to);
  Table moved;
  if (const auto table = tables_.find(before.stem); table != tables_.end()) moved = table->second;
  const auto head = heads_.find(from);
  std::string begun = head == heads_.end() ? std::string() : head->second;
  const bool had = moved.files.count(std::string(from)) != 0;
  removed(from);
  if (!begun.empty()) heads_[std::string(to)] = std::move(begun);
  if (after.stem.empty()) return;
  const auto into = [&]() -> Table& { return tables_[std::string(after.stem)]; };
  if (had && is_ending(after.ending)) into().files.emplace(to);
  if (before.ending == "frm" && after.ending == "frm" && moved.engine >= 0) {
    into().engine = moved.engine;
    into().partitioned = moved.partitioned;
  }
  if (before.ending == "par" && after.ending == "par" && moved.parts != 0) into().parts = moved.parts;
}

std::vector<std::string> TableFiles::lacking() const {
  std::vector<std::string> out;
  for (const auto& [stem, table] : tables_) {
    const TableEngine* const engine = engine_of(table.engine);
    if (engine == nullptr) continue;
    const std::uint32_t wanted = table.partitioned ? std::max<std::uint32_t>(1, table.parts) : 1;
    std::string missing;
    for (const std::string_view ending : engine->endings) {
      if (ending.empty()) continue;
      const auto there = std::count_if(table.files.begin(), table.files.end(), [&](const std::string& file) {
        return file.ends_with("." + std::string(ending));
      });
      if (static_cast<std::uint64_t>(there) >= wanted) continue;
      missing += (missing.empty() ? "" : ", ") + stem.substr(stem.find('/') + 1) + (table.partitioned ? "#P#*." : ".") +
                 std::string(ending);
    }
    if (missing.empty()) continue;
    out.push_back(table_name(stem) + " (" + std::string(engine->name) + ": " + missing + ")");
    if (out.size() == kMostNamed) break;
  }
  return out;
}

}  // namespace guestagent::mysql
