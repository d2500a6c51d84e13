// As much XML as S3 answers with: elements and text. Input is hostile.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace guestagent {

struct XmlElement {
  std::string name;  // without a namespace's prefix
  std::string text;  // all of its own, entities resolved
  std::vector<XmlElement> children;

  // The first child of that name, or nullptr.
  const XmlElement* child(std::string_view child_name) const;
  // That child's text, "" when there is none.
  std::string child_text(std::string_view child_name) const;
};

// The root element; nullopt for what is not well-formed, has a document type (entities of its own) or more
// than 16 levels. Attributes, comments and processing instructions are passed over.
std::optional<XmlElement> parse_xml(std::string_view text);

}  // namespace guestagent
