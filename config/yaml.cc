#include "config/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>
#include <unordered_set>

#include "base/error.h"
#include "base/text.h"

namespace guestagent {
namespace {

// yaml-cpp looks ahead over the openers of flow collections without a limit; no file of settings has a tenth
// of these.
constexpr std::ptrdiff_t kMaxFlowOpeners = 1000;
constexpr std::size_t kMaxMistakes = 100;
constexpr const char* kSeeShipped =
    "the shipped guestagent.yaml explains every key; `guestagent check-config` checks a file";

unsigned line_of(const YAML::Mark& mark) {
  return mark.line < 0 ? 1 : static_cast<unsigned>(mark.line) + 1;
}

Error bad_yaml(std::string_view name, unsigned line, std::string_view why) {
  return Error(Code::invalid_argument, std::string(name) + " (line " + std::to_string(line) + "): " + std::string(why),
               kSeeShipped);
}

// Builds our tree from the parser's events. Everything that is refused is refused here, before it is built.
class Builder : public YAML::EventHandler {
 public:
  Builder(std::string_view text, std::string_view name) : text_(text), name_(name) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (started_) throw bad_yaml(name_, line_of(mark), "a second document; one file has one");
    started_ = true;
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    if (key_is_next()) throw bad_yaml(name_, line_of(mark), "a key without a name");
    add(mark, YamlNode::Kind::null);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw bad_yaml(name_, line_of(mark), "aliases (*name) are not supported; write the value out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (tag == "!") require_closed_quote(mark);
    if (!key_is_next()) {
      add(mark, YamlNode::Kind::scalar).text = value;
      return;
    }
    Open& open = open_.back();
    if (!open.keys.insert(value).second) {
      throw bad_yaml(name_, line_of(mark), "the key \"" + printable(value) + "\" stands there twice");
    }
    open.key = value;
    open.key_line = line_of(mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    begin(mark, tag, anchor, YamlNode::Kind::list);
  }
  void OnSequenceEnd() override { end(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    begin(mark, tag, anchor, YamlNode::Kind::map);
  }
  void OnMapEnd() override { end(); }

  YamlNode take() { return std::move(root_); }

 private:
  struct Open {
    YamlNode node;
    std::optional<std::string> key;  // of the member whose value comes next
    unsigned key_line = 0;
    std::unordered_set<std::string> keys;
  };

  bool key_is_next() const {
    return !open_.empty() && open_.back().node.kind == YamlNode::Kind::map && !open_.back().key;
  }
  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
    if (anchor != YAML::NullAnchor) throw bad_yaml(name_, line_of(mark), "anchors (&name) are not supported");
  }
  void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    // "?" is a plain scalar, "!" a quoted one.
    if (tag != "?" && tag != "!" && !tag.empty())
      throw bad_yaml(name_, line_of(mark), "tags (!name) are not supported");
  }

  // At the end of the file the parser takes an open quote for a closed one.
  void require_closed_quote(const YAML::Mark& mark) const {
    const std::size_t start = static_cast<std::size_t>(mark.pos);
    if (mark.pos < 0 || start >= text_.size()) return;
    const char quote = text_[start];
    if (quote != '"' && quote != '\'') return;  // a block of text
    for (std::size_t at = start + 1; at < text_.size(); ++at) {
      const bool escape = quote == '"' ? text_[at] == '\\' : text_.substr(at, 2) == "''";
      if (escape) {
        ++at;
      } else if (text_[at] == quote) {
        return;
      }
    }
    throw bad_yaml(name_, line_of(mark), "the quote is not closed");
  }

  YamlNode& place(YamlNode node) {
    if (open_.empty()) return root_ = std::move(node);
    Open& parent = open_.back();
    if (parent.node.kind == YamlNode::Kind::list) return parent.node.items.emplace_back(std::move(node));
    node.line = parent.key_line;
    parent.node.members.push_back({std::move(*parent.key), std::move(node)});
    parent.key.reset();
    return parent.node.members.back().value;
  }
  YamlNode& add(const YAML::Mark& mark, YamlNode::Kind kind) {
    YamlNode node;
    node.kind = kind;
    node.line = line_of(mark);
    return place(std::move(node));
  }
  void begin(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Kind kind) {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (key_is_next()) throw bad_yaml(name_, line_of(mark), "a key must be a word, not a list or a map");
    if (open_.size() == kMaxYamlDepth) {
      throw bad_yaml(name_, line_of(mark), "nested deeper than " + std::to_string(kMaxYamlDepth) + " levels");
    }
    Open& open = open_.emplace_back();
    open.node.kind = kind;
    open.node.line = line_of(mark);
  }
  void end() {
    YamlNode node = std::move(open_.back().node);
    open_.pop_back();
    place(std::move(node));
  }

  std::string_view text_, name_;
  bool started_ = false;
  std::vector<Open> open_;
  YamlNode root_;
};

}  // namespace

YamlNode parse_yaml(std::string_view text, std::string_view name) {
  if (text.size() > kMaxYamlBytes) {
    throw Error(Code::invalid_argument,
                std::string(name) + ": larger than " + std::to_string(kMaxYamlBytes >> 20) + " MiB", kSeeShipped);
  }
  if (!valid_utf8(text) || text.find('\0') != std::string_view::npos) {
    throw Error(Code::invalid_argument, std::string(name) + ": it is no UTF-8 text", kSeeShipped);
  }
  if (std::count_if(text.begin(), text.end(), [](char c) { return c == '[' || c == '{'; }) > kMaxFlowOpeners) {
    throw Error(Code::invalid_argument,
                std::string(name) + ": more than " + std::to_string(kMaxFlowOpeners) + " of [ and {", kSeeShipped);
  }
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  Builder builder(text, name);
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& e) {
    throw bad_yaml(name, line_of(e.mark), "not YAML: " + e.msg);
  }
  YamlNode root = builder.take();
  if (root.kind == YamlNode::Kind::null) root.kind = YamlNode::Kind::map;
  if (root.kind != YamlNode::Kind::map) throw bad_yaml(name, root.line, "must be a map of sections");
  return root;
}

void YamlReport::add(unsigned line, std::string_view path, std::string_view why) {
  if (mistakes_.size() == kMaxMistakes) return;
  mistakes_.push_back(
      {line, name_ + ": " + std::string(path) + " (line " + std::to_string(line) + "): " + std::string(why)});
}

void YamlReport::throw_if_any() const {
  if (mistakes_.empty()) return;
  std::vector<Mistake> sorted = mistakes_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Mistake& a, const Mistake& b) { return a.line < b.line; });
  std::string text;
  for (const Mistake& mistake : sorted) {
    if (!text.empty()) text += '\n';
    text += mistake.text;
  }
  throw Error(Code::invalid_argument, text, kSeeShipped);
}

}  // namespace guestagent
