// The official TypeScript SDK of MCP: registration, sign-in, a tool, step-up and refresh.
import assert from 'node:assert/strict'
import { createInterface } from 'node:readline'
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client'

const server = new URL(process.env.SERVER)
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

const kept = { redirectUrl: 'http://127.0.0.1:51006/callback' }
const provider = {
  get redirectUrl() { return kept.redirectUrl },
  get clientMetadata() {
    return {
      client_name: 'Test agent', redirect_uris: [kept.redirectUrl],
      grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
      token_endpoint_auth_method: 'none',
    }
  },
  state: () => (kept.state = crypto.randomUUID()),
  clientInformation: () => kept.client,
  saveClientInformation: (client) => { kept.client = client },
  tokens: () => kept.tokens,
  saveTokens: (tokens) => { kept.tokens = tokens },
  redirectToAuthorization: (url) => { kept.url = url },
  saveCodeVerifier: (verifier) => { kept.verifier = verifier },
  codeVerifier: () => kept.verifier,
}

// Connects and works; whenever a user has to allow something first, the test is the user.
async function withUser(work) {
  for (let tries = 0; tries < 5; tries++) {
    const transport = new StreamableHTTPClientTransport(server, { authProvider: provider })
    const client = new Client({ name: 'test', version: '1' })
    try {
      await client.connect(transport)
      return await work(client)
    } catch (error) {
      if (!(error instanceof UnauthorizedError)) throw error
      console.log(kept.url.href)
      const { value } = await lines.next()
      const parameters = new URL(value).searchParams
      assert.equal(parameters.get('state'), kept.state)
      await transport.finishAuth(parameters)
    } finally {
      await client.close()
    }
  }
  throw new Error('this does not come to an end')
}

const weather = await withUser((client) =>
  client.callTool({ name: 'get_weather', arguments: { city: 'Bern' } }))
assert.equal(weather.content[0].text, 'It rains in Bern, alice.')
const reset = await withUser((client) => client.callTool({ name: 'admin_reset', arguments: {} }))
assert.equal(reset.content[0].text, 'All stations are forgotten.')

// A token that is no longer valid is refreshed, and the user is asked nothing.
const before = kept.tokens.refresh_token
kept.tokens = { ...kept.tokens, access_token: 'expired' }
const again = await withUser((client) => client.callTool({ name: 'admin_reset', arguments: {} }))
assert.equal(again.content[0].text, 'All stations are forgotten.')
assert.notEqual(kept.tokens.refresh_token, before)
assert.equal(kept.client.token_endpoint_auth_method, 'none')
console.log('all is well')
process.exit(0)
