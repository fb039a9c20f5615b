/** The authorities whose certificates of a database server are believed, from a file of the operator's. */

import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { ConfigurationError } from '../../lambdas/core/plan/configuration-error.ts';
import { moment } from '../../lambdas/core/telling/time.ts';

const expected =
  'expected a PEM file with the certificates of the authorities, like the bundle of Amazon RDS for your region';

/**
 * Their certificates, as PEM, and nothing else that the file holds.
 * @param source what the message calls the configuration
 * @throws ConfigurationError when there is none that could vouch for a server today, or a key, which must not be uploaded
 */
export function readAuthorities(file: string, source: string): string {
  const refusal = (found: string, what = expected) =>
    new ConfigurationError(`${source}: databaseAuthorities: found ${found}, ${what}`);
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    throw refusal(`no readable file at ${file}`);
  }
  if (/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text))
    throw refusal(
      `a private key in ${file}`,
      'expected certificates alone: the file is uploaded with the functions',
    );
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) throw refusal(`no certificate in ${file}`);
  const certificates = blocks.map((block, index) => {
    try {
      return new X509Certificate(block);
    } catch {
      throw refusal(`a certificate that cannot be read in ${file}, number ${index + 1} of ${blocks.length}`);
    }
  });
  // Nobody but an authority vouches for another.
  const authorities = certificates.filter((each) => each.ca || each.checkIssued(each));
  if (authorities.length === 0)
    throw refusal(
      `the certificate of ${subjectOf(certificates[0])} in ${file}, which is no authority's`,
      'expected that of the authority that has signed it',
    );
  const last = Math.max(...authorities.map(({ validTo }) => Date.parse(validTo)));
  if (last < Date.now())
    throw refusal(
      `no certificate in ${file} that is still valid: the last ended at ${moment(new Date(last))}`,
      'expected one that vouches for the server today',
    );
  return `${blocks.join('\n')}\n`;
}

function subjectOf(certificate: X509Certificate | undefined): string {
  return JSON.stringify(certificate?.subject.replaceAll('\n', ', ') ?? '');
}
