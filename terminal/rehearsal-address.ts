/** Where the commands find the rehearsal under way. */

/** In the current directory. */
export const rehearsalFile = '.rehearsal/operators.json';

export interface RehearsalAddress {
  readonly url: string;
  /** Only who may read the file operates it. */
  readonly accessKey: string;
}
