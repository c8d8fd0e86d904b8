// Which functions a search finds: a part of the name in any case, or a regular expression.

/** `{ matches, error }`: a flag for each name, or none if nothing is searched for or the expression is not one. */
function search(names, text, isRegex) {
  if (text === "") return { matches: null, error: null };
  let test;
  if (isRegex) {
    try {
      const expression = new RegExp(text, "iu");
      test = (name) => expression.test(name);
    } catch (error) {
      return { matches: null, error: error.message };
    }
  } else {
    const wanted = text.toLowerCase();
    test = (name) => name.toLowerCase().includes(wanted);
  }
  return { matches: Uint8Array.from(names, (name) => (test(name) ? 1 : 0)), error: null };
}
