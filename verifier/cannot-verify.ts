/** Nothing can be said about the data. The message says what was found, what is expected and what to do. */
export class CannotVerify extends Error {
  override readonly name = 'CannotVerify';
}
