// openid-client: authorization code with PKCE for a confidential client, bound by DPoP.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import * as client from 'openid-client'

const issuer = new URL(process.env.GATEWAY)
const config = await client.discovery(
  issuer, 'web', undefined, client.ClientSecretBasic('web-secret'),
  { execute: [client.allowInsecureRequests], algorithm: 'oauth2' },
)
const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair())
const pkceCodeVerifier = client.randomPKCECodeVerifier()
const expectedState = client.randomState()
const url = client.buildAuthorizationUrl(config, {
  redirect_uri: 'https://app.example/callback', scope: 'orders:read', state: expectedState,
  code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
  code_challenge_method: 'S256', dpop_jkt: await DPoP.calculateThumbprint(),
})
console.log(url.href)
const [line] = await once(createInterface({ input: process.stdin }), 'line')

const tokens = await client.authorizationCodeGrant(
  config, new URL(line), { pkceCodeVerifier, expectedState }, undefined, { DPoP },
)
assert.equal(tokens.token_type, 'dpop')
const told = await client.tokenIntrospection(config, tokens.access_token)
assert.equal(told.sub, 'alice')
const answer = await client.fetchProtectedResource(
  config, tokens.access_token, new URL('/api/x', issuer), 'GET', undefined, undefined, { DPoP },
)
assert.equal(await answer.text(), 'ok')
console.log('all is well')
process.exit(0)
