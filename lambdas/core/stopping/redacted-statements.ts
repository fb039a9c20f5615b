/** What may be told of a statement that somebody runs: never a literal, which may be a customer's datum. */

/** First words of statements. Anything else may be part of a datum, as in a statement that did not parse. */
const keywords = new Set(
  'ALTER ANALYZE BEGIN CALL CHECKPOINT CLUSTER COMMIT COPY CREATE DECLARE DELETE DO DROP END EXECUTE EXPLAIN FETCH GRANT INSERT LISTEN LOCK MERGE NOTIFY PREPARE REFRESH REINDEX RELEASE RESET REVOKE ROLLBACK SAVEPOINT SELECT SET SHOW START TABLE TRUNCATE UPDATE VACUUM VALUES WITH'.split(
    ' ',
  ),
);

/** Whose text pg_stat_statements stores with a parameter in the place of each literal. Others it stores as they were sent. */
const normalized = new Set('DELETE INSERT MERGE SELECT UPDATE VALUES WITH'.split(' '));

/** A quote, a dollar quote, a comment, or a number that is no part of a name or parameter: a literal that was left in. */
const literal = /'|--|\/\*|\$[^\d]|\$$|(?<![\w$])\.?\d/;

/** Characters of a statement that fit into a line. */
const maxLength = 160;

/**
 * The statement's normalized text, or else its first keyword.
 * @param text as it is running
 * @param stored what pg_stat_statements has of it, with parameters in the place of literals; it keeps comments, and under
 *   pressure literals, so it is looked at once more
 */
export function tellable(text: string, stored: string | undefined): string {
  const keyword = /^[\s(]*([a-z]+)/i.exec(text)?.[1]?.toUpperCase() ?? '';
  if (!keywords.has(keyword)) return 'a statement';
  // What PostgreSQL 18 writes in the place of a list's further parameters.
  const told = stored?.replaceAll('/*, ... */', ', …');
  if (told === undefined || !normalized.has(keyword) || literal.test(told)) return `${keyword} …`;
  const line = told.replace(/\s+/g, ' ').trim();
  return line.length > maxLength ? `${line.slice(0, maxLength)} …` : line;
}

/** A program's name, as drivers and tools give it. Applications may put anything there, whom they work for and links as well. */
const programName = /^(?!.*(:\/\/|\]\(|www\.))[a-z][\w .:/()[\]-]*$/i;

/** The name that a session goes by, unless it looks like an address, a number or a link. */
export function tellableName(application: string): string {
  return application === '' || programName.test(application) ? application : 'a name that is not told';
}
