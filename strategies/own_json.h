// What only one datastore understands, on its way through those who serve every one.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/json.h"

namespace guestagent {

// One JSON object as compact text: carried, shown and compared, but read only by the datastore whose it is. Made where
// it enters (parsed once, by who read the request or the file around it) or by the datastore.
class OwnJson {
 public:
  OwnJson() = default;  // {}
  // REQUIRES: `object` is the text of one JSON object without white space around its names, as JsonWriter makes it.
  explicit OwnJson(std::string object) : text_(std::move(object)) {}
  static OwnJson of(const JsonReader& object) { return OwnJson(to_json(object.value())); }

  const std::string& text() const { return text_; }
  // Its members, as they are, into the object that is being written. REQUIRES: no name has a quote or a backslash.
  void write_members(JsonWriter& out) const {
    if (text_.size() <= 2) return;
    // To the writer it is one member, whose value goes on with the others.
    const std::string_view all(text_);
    const std::size_t end = all.find('"', 2);
    out.key(all.substr(2, end - 2)).raw(all.substr(end + 2, all.size() - end - 3));
  }
  // Of text: whoever wants equal things to be equal makes them by one writer.
  bool operator==(const OwnJson&) const = default;

 private:
  std::string text_ = "{}";
};

}  // namespace guestagent
