/** Text of an SQL expression: quoted parts are skipped as a whole, since they may hold anything. */
const token =
  /'(?:[^']|'')*'|"(?:[^"]|"")*"|--|\/\*|[()$\\;'"]|\b[eE]'|[uU]&['"]|[^()$\\;'"/\-eEuU]+|[\s\S]/gy;

/**
 * What keeps a text from being one SQL condition that can be put in parentheses; empty when nothing does. It is executed
 * with the engine's rights, so it must not be able to end the statement that it is part of. What its functions do is the
 * responsibility of those who may start an execution.
 */
export function priorityProblem(text: string): string {
  let depth = 0;
  for (const [part] of text.matchAll(token)) {
    if (part === ';') return 'a semicolon';
    if (part === '--' || part === '/*') return 'a comment';
    if (part === '$' || part === '\\' || /^(?:[eE]'|[uU]&)/.test(part))
      return 'a quotation other than with plain quotes';
    if (part === "'" || part === '"') return 'a quotation that does not end';
    if (part === '(') depth += 1;
    if (part === ')') depth -= 1;
    if (depth < 0) return 'a parenthesis that closes nothing';
  }
  return depth > 0 ? 'a parenthesis that is never closed' : '';
}
