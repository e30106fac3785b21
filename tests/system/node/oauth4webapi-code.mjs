// oauth4webapi: authorization code with PKCE for a public client, every answer checked by it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import * as oauth from 'oauth4webapi'

const issuer = new URL(process.env.GATEWAY)
const http = { [oauth.allowInsecureRequests]: true }
const as = await oauth.processDiscoveryResponse(
  issuer,
  await oauth.discoveryRequest(issuer, { ...http, algorithm: 'oauth2' }),
)
assert.deepEqual(as.code_challenge_methods_supported, ['S256'])

const client = { client_id: 'app' }
const redirect = 'http://127.0.0.1:51004/callback'
const verifier = oauth.generateRandomCodeVerifier()
const state = oauth.generateRandomState()
const url = new URL(as.authorization_endpoint)
url.search = new URLSearchParams({
  client_id: 'app', response_type: 'code', redirect_uri: redirect, scope: 'orders:read', state,
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
})

// The test is the person with the browser.
console.log(url.href)
const [line] = await once(createInterface({ input: process.stdin }), 'line')

// Checks state, and iss by RFC 9207.
const parameters = oauth.validateAuthResponse(as, client, new URL(line), state)
const tokens = await oauth.processAuthorizationCodeResponse(
  as, client,
  await oauth.authorizationCodeGrantRequest(
    as, client, oauth.None(), parameters, redirect, verifier, http,
  ),
)
const refreshed = await oauth.processRefreshTokenResponse(
  as, client,
  await oauth.refreshTokenGrantRequest(as, client, oauth.None(), tokens.refresh_token, http),
)
const answer = await oauth.protectedResourceRequest(
  refreshed.access_token, 'GET', new URL('/api/x', issuer), undefined, undefined, http,
)
assert.equal(await answer.text(), 'ok')
console.log('all is well')
process.exit(0)
