/** What looks like personal data: by a column's name, type and comment, never by a value. Pure. */

export interface Column {
  readonly name: string;
  /** As format_type writes it. */
  readonly type: string;
  readonly comment: string | null;
}

export type Kind = (typeof kinds)[number]['kind'];

/** In the order in which they are tried. `weak`: so named in tables of things, too; counts beside a stronger one alone. */
const kinds = [
  {
    kind: 'email',
    weak: false,
    name: /(^|_|user|contact|customer|client|work|home|private)e?_?mails?(_?addr(ess)?)?(es)?(_|\d|$)/,
  },
  { kind: 'phone', weak: false, name: /phone|mobile|msisdn|e164|(^|_)(tel|fax|cell)(_|$)/ },
  {
    kind: 'name',
    weak: false,
    name: /(^|_)(first|last|middle|given|family|sur|full|maiden|legal|holder|owner|caller|contact|customer|client|patient|guest|guardian|employee|passenger|payer|payee|beneficiary)_?names?(_|$)|^(surname|forename)$/,
  },
  { kind: 'birth', weak: false, name: /(^|_)(dob|birth_?(date|day)|date_of_birth|born(_on)?)(_|$)/ },
  {
    kind: 'identity',
    weak: false,
    name: /(^|_)(ssn|social_security(_(no|number))?|national_id|passport(_(no|number))?|(tax|vat)_?(id|no|number)|tax_?payer_?(id|no|number)|tin|nino|cpf|driv(er|ing)s?_licen[cs]e(_(no|number))?)(_|$)/,
  },
  {
    kind: 'bank',
    weak: false,
    name: /(^|_)(iban|bic|bank_account|account_number|card_number|routing_number)(_|$)/,
  },
  // Before what ends in address alone.
  { kind: 'ip', weak: false, name: /(^|_)(ip(_?addr(ess)?)?|remote_addr)$/ },
  {
    kind: 'address',
    weak: false,
    name: /(^|_)(address(_line)?_?[12]?|addr|street|zip(_?code)?|post_?code|postal_?code)$/,
  },
  {
    kind: 'trait',
    weak: false,
    name: /^(medical_(notes?|history|records?)|gender|sex|religion|ethnicity|nationality|diagnosis|allergies)$/,
  },
  {
    kind: 'name',
    weak: true,
    name: /^(name|display_name|nick_?name|user_?name|login|recipient|sender|caller|contacts?|holder|owner)$/,
  },
  { kind: 'address', weak: true, name: /^(city|town|line_?[12])$/ },
] as const;

/** States, times, counts and the like about a value, and what was made of it. */
const about =
  /(_id|_at|_on|_by|_count|_hash|_digest|_encrypted|_sealed|_confirmed|_verified|_token|_type|_status|_enabled|_template)$|^(is|has|can|allow|num)_/;
/** Which end as references do, and are none unless they are numbers. */
const ownIds = /(^|_)(tax|vat|tax_?payer|national)_id$/;
const commentSaysSo = /\b(personal|pii|gdpr|sensitive|confidential)\b/i;
/** Truth values, references, and what this product writes. */
const neverTypes = /^(boolean|bytea|uuid)$/;
/** A number is a reference, unless it is of these. */
const numbers = /^(smallint|integer|bigint)$/;
const ofNumbers = /^(phone|identity|bank)$/;

/** The columns that look like personal data, each with its kind; none when only weak signs speak for it. */
export function personalColumns(
  columns: readonly Column[],
): { readonly name: string; readonly kind: Kind }[] {
  const found = columns.flatMap(({ name, type, comment }) => {
    const lower = name
      .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}]+/gu, '_');
    if (neverTypes.test(type)) return [];
    const kind =
      about.test(lower) && !/^born_on$/.test(lower) && !ownIds.test(lower)
        ? undefined
        : kinds.find((each) => each.name.test(lower));
    if (kind !== undefined && numbers.test(type) && (!ofNumbers.test(kind.kind) || ownIds.test(lower)))
      return [];
    if (kind !== undefined) return [{ name, kind: kind.kind, weak: kind.weak }];
    return commentSaysSo.test(comment ?? '') ? [{ name, kind: 'trait' as const, weak: false }] : [];
  });
  return found.some(({ weak }) => !weak) ? found.map(({ name, kind }) => ({ name, kind })) : [];
}
